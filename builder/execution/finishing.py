"""What is done to a finished stage's layers: paths are left out (``--ignore-path``), all become one
(``--single-snapshot``).

Steps are done and cached layer by layer all the same, and later steps see what the image will not have. Layers that are
written anew are cached too, by what they are made of, so that a build which finds all its steps fetches none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from builder import events
from builder.contexts.ignore import IgnoreRules
from builder.execution.execute import BuiltStage
from builder.execution.step_cache import StepCache
from builder.layer.merge import Merge
from builder.layer.origins import BuildLayers
from builder.layer.rewrite import layer_without, merge_layers, write_merged
from builder.layer.storing import keep_layer
from builder.outputs.exports import LayerFormat
from builder.planning.keys import layer_without_key, single_layer_key
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.oci.config import History
from cache.oci.layer import Layer


@dataclass(frozen=True, slots=True)
class Finishing:
    """``ignored`` are patterns of absolute paths; ``single``: one layer over the base."""

    layers: BuildLayers
    cache: StepCache
    listen: events.Listener
    layer_format: LayerFormat
    ignored: Sequence[str] = ()
    single: bool = False

    async def finish(self, built: BuiltStage) -> BuiltStage:
        """The stage as it is to be delivered. Raises BuildError."""
        if self.ignored:
            built = await self._without_ignored(built)
        return await self._as_one(built) if self.single else built

    async def _without_ignored(self, built: BuiltStage) -> BuiltStage:
        made = built.layers[built.base_layers :]
        keys = [layer_without_key(layer, self.ignored) for layer in made]
        await self.cache.look_up(keys)
        excludes = IgnoreRules.parse("\n".join(self.ignored)).excludes
        left = [
            await self._cached(key, built, partial(self._without, layer, excludes))
            for key, layer in zip(keys, made, strict=True)
        ]
        return _with_layers(built, left)

    async def _without(self, layer: Layer, excludes: Callable[[str], bool]) -> Layer | None:
        blobs = await self._blobs([layer])
        merge = await asyncio.to_thread(layer_without, blobs[0], excludes)
        return layer if merge is None else await self._written(merge, blobs)

    async def _as_one(self, built: BuiltStage) -> BuiltStage:
        base, made = built.layers[: built.base_layers], built.layers[built.base_layers :]
        if len(made) < 2:
            return built
        key = single_layer_key(base, made)
        await self.cache.look_up([key])
        layer = await self._cached(key, built, partial(self._merged, base, made))
        return _with_layers(built, [None] * (len(made) - 1) + [layer])

    async def _merged(self, base: Sequence[Layer], made: Sequence[Layer]) -> Layer | None:
        above = await self._blobs(made)
        merged = await asyncio.to_thread(merge_layers, above)
        below = await self._blobs(base) if merged.asks_for_lower() else []
        layer = await self._written(merged.over(await asyncio.to_thread(merge_layers, below)), above)
        self.listen(events.Note(f"one layer was made of {len(made)}"))
        return layer

    async def _cached(
        self, key: CacheKey, built: BuiltStage, make: Callable[[], Awaitable[Layer | None]]
    ) -> Layer | None:
        step = self.cache.found(key)
        if step is None:
            started_s = time.monotonic()
            layer = await make()
            seconds = round(time.monotonic() - started_s, 3)
            step = CachedStep(key=key, layer=layer, seconds=seconds, created=built.config.created)
            self.cache.save(step)
        return step.layer

    async def _written(self, merge: Merge, blobs: Sequence[Path]) -> Layer | None:
        if merge.is_empty:
            return None
        write = partial(write_merged, merge, blobs, wanted=self.layer_format)
        return await asyncio.to_thread(keep_layer, self.layers.store, self.layer_format.compression, write)

    async def _blobs(self, layers: Sequence[Layer]) -> list[Path]:
        return await asyncio.gather(*map(self.layers.fetch, layers))


def _with_layers(built: BuiltStage, made: Sequence[Layer | None]) -> BuiltStage:
    """The stage with these layers over its base, in the place of those that it has there; the history says which."""
    rest = iter(made)
    entries: list[History] = []
    for entry in built.config.history[built.base_history :]:
        empty = entry.empty_layer or next(rest) is None
        entries.append(msgspec.structs.replace(entry, empty_layer=empty))
    history = (*built.config.history[: built.base_history], *entries)
    layers = (*built.layers[: built.base_layers], *(layer for layer in made if layer is not None))
    return replace(built, config=msgspec.structs.replace(built.config, history=history), layers=layers)
