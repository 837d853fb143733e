"""Builds stages: a step that was found in the cache is taken from there, any other is done.

Work is lazy. A stage's files are only put together when a step of it, or a copy from it, really needs them; a stage
that only feeds cached copies is never touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from builder import events, metadata
from builder.events import Outcome
from builder.graph import KeyedStage, source_stages
from builder.layers import BuildLayers
from builder.perform import Performer
from builder.plan import ImageBase, ScratchBase, StageBase
from builder.stage_root import RootFactory, StageRoot
from builder.step_cache import StepCache
from builder.steps import LayerStep, Metadata, StageSteps, Step
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.oci.config import History, ImageConfig
from cache.oci.layer import Layer


@dataclass(slots=True)
class _StageState:
    """A stage on its way: what it has so far, and its files if they were needed."""

    layers: list[Layer]
    history: list[History]
    root: StageRoot | None = None
    applied: int = 0


@dataclass(frozen=True, slots=True)
class BuiltStage:
    """A finished stage."""

    config: ImageConfig
    layers: tuple[Layer, ...]


@dataclass(slots=True)
class Executor:
    """Builds the stages of one build, each at most once."""

    stages: Mapping[int, KeyedStage]
    base_layers: Mapping[int, tuple[Layer, ...]]
    cache: StepCache
    layers: BuildLayers
    roots: RootFactory
    performer: Performer
    listen: events.Listener
    created: str
    _states: dict[int, _StageState] = field(default_factory=dict)

    async def build(self, index: int) -> BuiltStage:
        """The stage, with its configuration and layers. Raises BuildError."""
        state = await self._state(index)
        self._report_untouched()
        config = msgspec.structs.replace(
            self.stages[index].stage.config, created=self.created, history=tuple(state.history)
        )
        return BuiltStage(config, tuple(state.layers))

    async def _state(self, index: int) -> _StageState:
        if index not in self._states:
            keyed = self.stages[index]
            state = self._states[index] = await self._start(keyed.stage)
            cached = self._is_cached(keyed)
            for number, (step, key) in enumerate(keyed.keyed_steps()):
                if isinstance(step, Metadata) or key is None:
                    self.listen(events.StepEnded(step.name, Outcome.CACHED if cached else Outcome.DONE))
                    state.history += [self._history(step, self.created, empty=True)] if step.created_by else []
                else:
                    await self._layer_step(state, (index, number), step, key)
        return self._states[index]

    async def _start(self, stage: StageSteps) -> _StageState:
        match stage.plan.base:
            case StageBase(index):
                below = await self._state(index)
                return _StageState(list(below.layers), list(below.history))
            case ScratchBase():
                return _StageState([], [])
            case ImageBase():
                return _StageState(list(self.base_layers[stage.plan.index]), list(stage.base_config.history))

    def _is_cached(self, keyed: KeyedStage) -> bool:
        """Whether nothing of the stage has to be done."""
        return self.cache.enabled and all(self.cache.found(key) is not None for key in keyed.keys if key is not None)

    async def _layer_step(self, state: _StageState, at: tuple[int, int], step: LayerStep, key: CacheKey) -> None:
        cached = self.cache.found(key)
        if cached is None:
            layer, created = await self._perform(state, at, step, key), self.created
        else:
            layer, created = cached.layer, self.created if self.performer.clamp_mtime_s is not None else cached.created
            state.layers += [layer] if layer is not None else []
            self.listen(events.StepEnded(step.name, Outcome.CACHED))
        state.history.append(self._history(step, created, empty=layer is None))

    async def _perform(self, state: _StageState, at: tuple[int, int], step: LayerStep, key: CacheKey) -> Layer | None:
        self.listen(events.StepStarted(step.name))
        root = await self._root(state)
        roots = {index: await self._root(await self._state(index)) for index in source_stages(step)}
        started_s = time.monotonic()
        performed = await self.performer.perform(root, at, step, roots)
        seconds = time.monotonic() - started_s
        layer = performed.layer
        if layer is not None:
            state.layers.append(layer)
            state.applied += performed.in_root
        self.cache.save(CachedStep(key=key, layer=layer, seconds=round(seconds, 3), created=self.created))
        size_bytes = None if layer is None else layer.descriptor.size
        self.listen(events.StepEnded(step.name, Outcome.DONE, seconds, size_bytes))
        return layer

    async def _root(self, state: _StageState) -> StageRoot:
        """The stage's files with all its layers so far on them."""
        if state.root is None:
            state.root = await self.roots.new_root()
        missing = state.layers[state.applied :]
        blobs = await asyncio.gather(*(self.layers.fetch(layer) for layer in missing))
        for layer, blob in zip(missing, blobs, strict=True):
            await state.root.apply(layer, blob)
            state.applied += 1
        return state.root

    def _report_untouched(self) -> None:
        """Says of the stages that were not needed after all whether the cache had their steps."""
        for index, keyed in self.stages.items():
            if index in self._states:
                continue
            for step, key in keyed.keyed_steps():
                hit = key is None or self.cache.found(key) is not None
                self.listen(events.StepEnded(step.name, Outcome.CACHED if hit else Outcome.UNUSED))

    def _history(self, step: Step, created: str, *, empty: bool) -> History:
        return metadata.history_entry(step.created_by, created, empty_layer=empty)
