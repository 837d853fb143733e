"""A finished stage with one layer over its base: what ``--single-snapshot`` makes of the layers of its steps.

The steps are done and cached layer by layer all the same. The one layer is cached too, by the layers that it is made
of, so that a build which finds all its steps fetches none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from builder import events
from builder.execution.execute import BuiltStage
from builder.execution.step_cache import StepCache
from builder.layer.origins import BuildLayers
from builder.layer.squash import LayerBlob, merge_layers, write_merged
from builder.layer.storing import keep_layer
from builder.outputs.exports import LayerFormat
from builder.planning.keys import single_snapshot_key
from cache.entry import CachedStep
from cache.oci import media_types
from cache.oci.config import History, ImageConfig
from cache.oci.layer import Layer


@dataclass(frozen=True, slots=True)
class SingleSnapshot:
    """Merges the layers of stages, and writes the result as ``layer_format``."""

    layers: BuildLayers
    cache: StepCache
    listen: events.Listener
    layer_format: LayerFormat

    async def of(self, built: BuiltStage) -> BuiltStage:
        """The same stage, with at most one layer over its base. Raises BuildError."""
        base, made = built.layers[: built.base_layers], built.layers[built.base_layers :]
        if len(made) < 2:
            return built
        layer = await self._merged(base, made, built.config.created)
        config = _with_one_layer(built.config, built.base_history, whole=layer is not None)
        return replace(built, config=config, layers=(*base, layer) if layer is not None else base)

    async def _merged(self, base: Sequence[Layer], made: Sequence[Layer], created: str) -> Layer | None:
        key = single_snapshot_key(base, made)
        await self.cache.look_up([key])
        step = self.cache.found(key)
        if step is None:
            started_s = time.monotonic()
            layer = await self._merge(base, made)
            seconds = round(time.monotonic() - started_s, 3)
            step = CachedStep(key=key, layer=layer, seconds=seconds, created=created)
            self.cache.save(step)
            self.listen(events.Note(f"one layer was made of {len(made)} in {seconds:.1f}s"))
        return step.layer

    async def _merge(self, base: Sequence[Layer], made: Sequence[Layer]) -> Layer | None:
        above = await self._blobs(made)
        merged = await asyncio.to_thread(merge_layers, above)
        below = await self._blobs(base) if merged.asks_for_lower() else []
        merge = merged.over(await asyncio.to_thread(merge_layers, below))
        if merge.is_empty:
            return None
        write = partial(write_merged, merge, above, wanted=self.layer_format)
        return await asyncio.to_thread(keep_layer, self.layers.store, self.layer_format.compression, write)

    async def _blobs(self, layers: Sequence[Layer]) -> list[LayerBlob]:
        paths = await asyncio.gather(*map(self.layers.fetch, layers))
        kinds = (media_types.layer_compression(layer.descriptor.media_type) for layer in layers)
        return [LayerBlob(*pair) for pair in zip(paths, kinds, strict=True)]


def _with_one_layer(config: ImageConfig, base_history: int, *, whole: bool) -> ImageConfig:
    """The last entry of the history that had a layer has the ``whole`` one; those before it have none."""
    entries: list[History] = []
    for entry in reversed(config.history[base_history:]):
        keeps = whole and not entry.empty_layer
        whole = whole and not keeps
        entries.append(msgspec.structs.replace(entry, empty_layer=not keeps))
    return msgspec.structs.replace(config, history=(*config.history[:base_history], *reversed(entries)))
