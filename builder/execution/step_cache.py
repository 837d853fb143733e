"""The steps that a build found in the cache, and the ones that it saves while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from msgspec.structs import replace

from builder import events
from builder.layer.origins import BuildLayers, Origin
from builder.options import CacheOptions
from builder.outputs.exports import USUAL_LAYERS, LayerFormat
from builder.planning.keys import formatted_key
from builder.planning.steps import CopyFiles, LayerStep
from cache.entry import CachedStep
from cache.errors import CacheError
from cache.keys import CacheKey
from cache.layers import LayerCache
from cache.oci.errors import OCIError

USUAL_OPTIONS = CacheOptions()


class StepCache:
    """One build's view of a layer cache; without one (None) nothing is found and nothing saved.

    A cache that fails never fails a build: it is warned of and counts as a miss. Keys say what files a layer holds;
    what is made in another ``layer_format`` than the usual one has a name of its own in the cache.
    """

    def __init__(
        self,
        cache: LayerCache | None,
        origin: Origin | None,
        layers: BuildLayers,
        listen: events.Listener,
        options: CacheOptions = USUAL_OPTIONS,
        layer_format: LayerFormat = USUAL_LAYERS,
    ) -> None:
        self._cache = cache
        self._origin = origin
        self._layers = layers
        self._listen = listen
        self._options = options
        self._format = layer_format
        self._found: dict[CacheKey, CachedStep] = {}
        self._made: dict[CacheKey, CachedStep] = {}
        self._saves: list[asyncio.Task[None]] = []

    @property
    def enabled(self) -> bool:
        return self._cache is not None

    def covers(self, step: LayerStep) -> bool:
        """Whether such steps are looked up and saved."""
        return self._options.copies if isinstance(step, CopyFiles) else self._options.runs

    async def look_up(self, keys: Iterable[CacheKey]) -> None:
        """Asks for these keys at once; what is found is kept beside what was found before."""
        if self._cache is None:
            return
        try:
            wanted = {self._name(key): key for key in keys}
            named = await self._cache.lookup(tuple(wanted))
        except (CacheError, OCIError) as error:
            self._listen(events.Warned(f"the cache cannot be read, so every step is built and none is saved: {error}"))
            self._cache = None
            return
        found = {wanted[name]: replace(step, key=wanted[name]) for name, step in named.items()}
        self._found |= found
        for step in found.values():
            if step.layer is not None and self._origin is not None:
                self._layers.add(step.layer, self._origin)

    def _name(self, key: CacheKey) -> CacheKey:
        """Under which the step's result lies in the cache."""
        return key if self._format == USUAL_LAYERS else formatted_key(key, str(self._format))

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def found(self, key: CacheKey) -> CachedStep | None:
        """The step's result, if the cache has it."""
        return self._found.get(key)

    async def recall_note(self, key: CacheKey) -> str:
        """The text that an earlier build kept under this key; empty for none."""
        if self._cache is None:
            return ""
        try:
            step = await self._cache.recall(self._name(key))
        except (CacheError, OCIError) as error:
            self._listen(events.Warned(f"the note of the last build cannot be read from the cache: {error}"))
            return ""
        return step.note if step is not None else ""

    def note_made(self, step: CachedStep) -> None:
        """Notes what this build has made itself."""
        self._made[step.key] = step

    def save(self, step: CachedStep, *others: CacheKey) -> None:
        """Notes a step, and saves it in the background, while the build goes on; under ``others`` too."""
        self.note_made(step)
        if self._cache is not None and self._options.save:
            self._saves.append(asyncio.create_task(self._save(self._cache, step, others)))

    def share_made(self) -> None:
        """Lets the steps that were made so far be found: for the next platform or target of the same build."""
        self._found |= self._made

    async def _save(self, cache: LayerCache, step: CachedStep, others: Iterable[CacheKey]) -> None:
        layer = step.layer
        try:
            for named in (replace(step, key=self._name(key)) for key in (step.key, *others)):
                await cache.save(named, None if layer is None else lambda: self._layers.open(layer))
        except (CacheError, OCIError) as error:
            self._listen(events.Warned(f"a step could not be saved in the cache: {error}"))
            return
        if layer is not None and self._origin is not None:
            self._layers.add(layer, self._origin)

    async def finish(self) -> None:
        """Waits until everything is saved, and what was found is noted as used."""
        await asyncio.gather(*self._saves)
        if self._cache is not None:
            try:
                await self._cache.note_uses()
            except CacheError as error:
                self._listen(events.Warned(f"that steps were used could not be noted in the cache: {error}"))

    async def abandon(self) -> None:
        """Ends saves that have not finished: the build has failed."""
        for task in self._saves:
            task.cancel()
        await asyncio.gather(*self._saves, return_exceptions=True)
