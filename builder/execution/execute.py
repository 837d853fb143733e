"""Builds stages: a step that was found in the cache is taken from there, any other is done.

Work is lazy. A stage's files are only put together when a step of it, or a copy from it, really needs them; a stage
that only feeds cached copies is never touched. Stages that do not wait for each other are built side by side.

A step that takes from a stage has two keys, and so has all that follows it. One is known before anything runs: there
the stage's own key stands for the files. In the other the files stand for themselves, once the stage is built: a stage
that was built anew and came out the same does not make the rest be built again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from builder import events
from builder.events import Outcome
from builder.execution.copy import Source
from builder.execution.step_cache import StepCache
from builder.execution.workshop import Workshop
from builder.layer.rootfs import Tree
from builder.planning import metadata
from builder.planning.graph import KeyedStage, Position, chain_behind, needed_stages, source_stages, stage_reads
from builder.planning.plan import ImageBase, ScratchBase, StageBase
from builder.planning.steps import LayerStep, Metadata, StageSteps, Step
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.oci.config import History, ImageConfig
from cache.oci.layer import Layer

if TYPE_CHECKING:
    from builder.execution.perform import Performer
    from builder.execution.stage_root import StageRoot

_STEPS_AT_ONCE = 16
"""Of all stages: many wait for a network rather than a processor."""


@dataclass(slots=True)
class _StageState:
    """A stage on its way: what it has so far, and its files if they were needed.

    ``content_chain`` is the chain by contents where it is another than the one that was known from the start.
    """

    layers: list[Layer]
    history: list[History]
    base_layers: int = 0
    base_history: int = 0
    root: StageRoot | None = None
    applied: int = 0
    content_chain: CacheKey | None = None
    putting_together: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class BuiltStage:
    """A finished stage. Of its layers and its history the first so many are those of the image that it began with."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    base_layers: int = 0
    base_history: int = 0


@dataclass(slots=True)
class Executor:
    """Builds the stages of one build, each at most once."""

    stages: Mapping[int, KeyedStage]
    base_layers: Mapping[int, tuple[Layer, ...]]
    cache: StepCache
    workshop: Workshop
    sources: Mapping[Position, tuple[Source, ...]]
    listen: events.Listener
    created: str
    _tasks: dict[int, asyncio.Task[_StageState]] = field(default_factory=dict)
    _performer: Performer | None = None
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_STEPS_AT_ONCE))

    async def build(self, index: int) -> BuiltStage:
        """The stage, with its configuration and layers. Raises BuildError; the first step that fails ends the rest."""
        tasks = [self._task(needed) for needed in needed_stages(self.stages, index, self.cache)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        state = self._task(index).result()
        self._report_untouched()
        config = msgspec.structs.replace(
            self.stages[index].stage.config, created=self.created, history=tuple(state.history)
        )
        return BuiltStage(config, tuple(state.layers), state.base_layers, state.base_history)

    async def files(self, index: int) -> Tree:
        """The files of a stage that is built."""
        return (await self._root(await self._state(index))).tree

    def _task(self, index: int) -> asyncio.Task[_StageState]:
        """The building of a stage, which is begun once."""
        if index not in self._tasks:
            self._tasks[index] = asyncio.create_task(self._build(index))
        return self._tasks[index]

    async def _state(self, index: int) -> _StageState:
        """The stage once it is built; who asks may be cancelled, and the building goes on."""
        task = self._task(index)
        await asyncio.wait([task])
        return task.result()

    async def _build(self, index: int) -> _StageState:
        keyed = self.stages[index]
        state = await self._start(keyed.stage)
        cached = self._is_cached(keyed)
        for number, (step, key) in enumerate(keyed.keyed_steps()):
            if isinstance(step, Metadata) or key is None:
                self.listen(events.StepEnded(step.name, Outcome.CACHED if cached else Outcome.DONE))
                state.history += [self._history(step, self.created, empty=True)] if step.created_by else []
            else:
                await self._layer_step(state, (index, number), step, key)
        return state

    async def _start(self, stage: StageSteps) -> _StageState:
        match stage.plan.base:
            case StageBase(index):
                below = await self._state(index)
                return _StageState(list(below.layers), list(below.history), below.base_layers, below.base_history)
            case ScratchBase():
                return _StageState([], [])
            case ImageBase():
                layers, history = self.base_layers[stage.plan.index], stage.base_config.history
                return _StageState([*layers], [*history], len(layers), len(history))

    def _is_cached(self, keyed: KeyedStage) -> bool:
        """Whether nothing of the stage has to be done."""
        return self.cache.enabled and all(self.cache.found(key) is not None for key in keyed.keys if key is not None)

    async def _layer_step(self, state: _StageState, at: tuple[int, int], step: LayerStep, key: CacheKey) -> None:
        cached = self.cache.found(key)
        content_key = await self._content_key(state, at, step, known=cached is not None)
        if cached is None and content_key is not None and self.cache.covers(step):
            await self.cache.look_up([content_key])
            cached = self.cache.found(content_key)
            if cached is not None:
                self.cache.save(replace(cached, key=key))
        if cached is None:
            layer, created = await self._perform(state, at, step, (key, content_key)), self.created
        else:
            clamped = self.workshop.options.clamp_mtime_s is not None
            layer, created = cached.layer, self.created if clamped else cached.created
            state.layers += [layer] if layer is not None else []
            self.listen(events.StepEnded(step.name, Outcome.CACHED))
        state.history.append(self._history(step, created, empty=layer is None))

    async def _content_key(
        self, state: _StageState, at: tuple[int, int], step: LayerStep, *, known: bool
    ) -> CacheKey | None:
        """The step's key by contents; None where it is the other one, or would need what a ``known`` step prunes."""
        inputs = self.stages[at[0]].inputs[at[1]]
        reads = () if known or not self.cache.enabled else tuple(stage_reads(step))
        if inputs is None or (state.content_chain is None and not reads):
            return None
        taken = dict(inputs.taken)
        for number, source, selection in reads:
            root = await self._root(await self._state(source))
            taken[number] = await self._doer().content(root, step, selection)
        chain = state.content_chain or inputs.chain
        key = replace(inputs, chain=chain, taken=taken).key(step)
        state.content_chain = chain_behind(chain, step, key)
        return key

    async def _perform(
        self, state: _StageState, at: tuple[int, int], step: LayerStep, keys: tuple[CacheKey, CacheKey | None]
    ) -> Layer | None:
        sources = {index: await self._state(index) for index in source_stages(step)}
        async with self._slots:
            self.listen(events.StepStarted(step.name))
            root = await self._root(state)
            roots = {index: await self._root(source) for index, source in sources.items()}
            started_s = time.monotonic()
            performed = await self._doer().perform(root, at, step, roots)
            seconds = time.monotonic() - started_s
        layer = performed.layer
        if layer is not None:
            state.layers.append(layer)
            state.applied += performed.in_root
        key, content_key = keys
        done = CachedStep(key=key, layer=layer, seconds=round(seconds, 3), created=self.created)
        if self.cache.covers(step):
            self.cache.save(done, *([content_key] if content_key is not None else []))
        else:
            self.cache.note_made(done)
        size_bytes = None if layer is None else layer.descriptor.size
        self.listen(events.StepEnded(step.name, Outcome.DONE, seconds, size_bytes))
        return layer

    def _doer(self) -> Performer:
        """Who does the steps, got when the first one has to be done."""
        if self._performer is None:
            self._performer = self.workshop.performer(self.sources)
        return self._performer

    async def _root(self, state: _StageState) -> StageRoot:
        """The stage's files with all its layers so far on them."""
        async with state.putting_together:
            if state.root is None:
                state.root = await self.workshop.roots().new_root()
            await state.root.apply(state.layers[state.applied :])
            state.applied = len(state.layers)
            return state.root

    def _report_untouched(self) -> None:
        """Says of the stages that were not needed after all whether the cache had their steps."""
        for index, keyed in self.stages.items():
            if index in self._tasks:
                continue
            for step, key in keyed.keyed_steps():
                hit = key is None or self.cache.found(key) is not None
                self.listen(events.StepEnded(step.name, Outcome.CACHED if hit else Outcome.UNUSED))

    def _history(self, step: Step, created: str, *, empty: bool) -> History:
        return metadata.history_entry(step.created_by, created, empty_layer=empty)
