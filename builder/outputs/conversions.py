"""The layers of one build in other formats, each converted once however many exports want it so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from builder.layer.origins import BuildLayers
from builder.outputs.exports import LayerFormat
from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.singleflight import SingleFlight


@dataclass(slots=True)
class Conversions:
    """``made`` is how the steps of this build wrote their layers."""

    layers: BuildLayers
    made: LayerFormat
    _done: dict[tuple[Digest, LayerFormat], Layer] = field(default_factory=dict)
    _running: SingleFlight[tuple[Digest, LayerFormat], Layer] = field(default_factory=SingleFlight)

    async def convert(
        self, layers: Sequence[Layer], base: frozenset[Digest], wanted: LayerFormat, *, recompress: bool
    ) -> tuple[Layer, ...]:
        """The layers as ``wanted``: those of the build itself, and with ``recompress`` those of the ``base`` too."""
        return tuple(
            await asyncio.gather(
                *(
                    self._converted(layer, wanted)
                    if self._is_other(layer, base, wanted, recompress=recompress)
                    else _itself(layer)
                    for layer in layers
                )
            )
        )

    def _is_other(self, layer: Layer, base: frozenset[Digest], wanted: LayerFormat, *, recompress: bool) -> bool:
        media_type = layer.descriptor.media_type
        if layer.descriptor.digest not in base:
            return wanted != self.made
        if not recompress or media_types.is_foreign_layer(media_type):
            return False
        return wanted.level is not None or media_types.layer_compression(media_type) != wanted.compression

    async def _converted(self, layer: Layer, wanted: LayerFormat) -> Layer:
        key = (layer.descriptor.digest, wanted)
        if key not in self._done:
            self._done[key] = await self._running.run(key, lambda: self._convert(layer, wanted))
        return self._done[key]

    async def _convert(self, layer: Layer, wanted: LayerFormat) -> Layer:
        return await asyncio.to_thread(self._write, await self.layers.fetch(layer), wanted)

    def _write(self, blob: Path, wanted: LayerFormat) -> Layer:
        from builder.layer.storing import keep_layer
        from builder.layer.tarlayer import recompress_layer

        with blob.open("rb") as source:
            write = partial(recompress_layer, source, wanted=wanted)
            return keep_layer(self.layers.store, wanted.compression, write)


async def _itself(layer: Layer) -> Layer:
    return layer
