"""The needed stages with the key of every step: what a build looks up before it does anything (pure)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from builder.contexts.remote import RemoteSource
from builder.errors import Span
from builder.planning import keys
from builder.planning.plan import StageBase
from builder.planning.sources import ContextSource, Origin, Selection, StageSource
from builder.planning.steps import CopyFiles, LayerStep, MakeDirectory, Metadata, RunCommand, StageSteps, Step
from cache.keys import CacheKey, KeyBuilder

Position = tuple[int, int, int]
"""A step's stage index, its place there, and the number of the mount (0 for a copy, from 1 on what it fetches)."""


@dataclass(frozen=True, slots=True)
class ContextRead:
    """Files that a step takes from a build context; ADD's archives are to be told apart. ``span`` is the step's place:
    two that take the same are equal."""

    context: ContextSource
    selection: Selection
    detect_archives: bool
    span: Span = field(compare=False)


class StepInputs(msgspec.Struct, frozen=True):
    """What a key is made of, beside the step: the chain below it, and what stands for the files that it takes."""

    chain: CacheKey
    taken: Mapping[int, str]
    clamp_mtime_s: int | None

    def key(self, step: LayerStep) -> CacheKey:
        """The step's key with these."""
        return self.fields(step).key()

    def fields(self, step: LayerStep) -> KeyBuilder:
        """All that goes into the step's key with these."""
        match step:
            case RunCommand():
                return keys.run_key(self.chain, step, self.taken)
            case MakeDirectory():
                return keys.directory_key(self.chain, step)
            case CopyFiles():
                return keys.copy_key(self.chain, step, self.taken, self.clamp_mtime_s)


class KeyedStage(msgspec.Struct, frozen=True):
    """A stage's steps, each with its key and what that is made of (None for metadata), and the stage's last key.

    ``base`` is what an image, or nothing, as the start of the stage puts into the keys; None above another stage.
    """

    stage: StageSteps
    keys: tuple[CacheKey | None, ...]
    inputs: tuple[StepInputs | None, ...]
    end: CacheKey
    base: KeyBuilder | None = None

    @property
    def index(self) -> int:
        return self.stage.plan.index

    def keyed_steps(self) -> Iterator[tuple[Step, CacheKey | None]]:
        """The steps with their keys, in order."""
        return zip(self.stage.steps, self.keys, strict=True)


def context_reads(stages: Sequence[StageSteps]) -> Iterator[tuple[Position, ContextRead]]:
    """What is taken from build contexts, which the keys need to know the content of."""
    for stage in stages:
        for place, step in enumerate(stage.steps):
            for number, origin, selection in _taken(step):
                if isinstance(origin, ContextSource):
                    archives = isinstance(step, CopyFiles) and step.unpack
                    read = ContextRead(origin, selection, archives, step.span)
                    yield (stage.plan.index, place, number), read


def _taken(step: Step) -> Iterator[tuple[int, Origin, Selection]]:
    """What a step takes files from: the number, whose they are, and which."""
    match step:
        case CopyFiles() if step.selection.patterns:
            yield 0, step.origin, step.selection
        case RunCommand():
            for number, mount in enumerate(step.mounts):
                if mount.origin is not None:
                    yield number, mount.origin, mount.selection


def remote_reads(stages: Sequence[StageSteps]) -> Iterator[tuple[Position, CopyFiles, RemoteSource]]:
    """What is fetched, numbered from 1 in its step."""
    for stage in stages:
        for place, step in enumerate(stage.steps):
            if isinstance(step, CopyFiles):
                for number, remote in enumerate(step.remotes, 1):
                    yield (stage.plan.index, place, number), step, remote


def source_stages(step: Step) -> frozenset[int]:
    """The stages that a step takes files from."""
    return frozenset(origin.index for _, origin, _ in _taken(step) if isinstance(origin, StageSource))


def needed_stages(stages: Mapping[int, KeyedStage], target: int, found: Container[CacheKey]) -> list[int]:
    """The stages that the target needs, in building order; a step that ``found`` holds needs none of its sources."""
    needed: set[int] = set()
    todo = [target]
    while todo:
        index = todo.pop()
        if index in needed:
            continue
        needed.add(index)
        base = stages[index].stage.plan.base
        todo += [base.index] if isinstance(base, StageBase) else []
        for step, key in stages[index].keyed_steps():
            if key is not None and key not in found:
                todo += source_stages(step)
    return sorted(needed)


def key_stages(
    stages: Sequence[StageSteps], contents: Mapping[Position, CacheKey], clamp_mtime_s: int | None
) -> dict[int, KeyedStage]:
    """The stages by index. ``stages`` come in building order; ``contents`` has the digest of every context read."""
    keyed: dict[int, KeyedStage] = {}
    for stage in stages:
        below = stage.plan.base
        if isinstance(below, StageBase):
            base, chain = None, keyed[below.index].end
        else:
            base = keys.base_key(stage.base_config, clamp_mtime_s)
            chain = base.key()
        step_keys: list[CacheKey | None] = []
        all_inputs: list[StepInputs | None] = []
        for place, step in enumerate(stage.steps):
            if isinstance(step, Metadata):
                step_keys.append(None)
                all_inputs.append(None)
                continue
            taken = _taken_contents(step, (stage.plan.index, place), keyed, contents)
            inputs = StepInputs(chain, taken, clamp_mtime_s)
            key = inputs.key(step)
            all_inputs.append(inputs)
            step_keys.append(key)
            chain = chain_behind(chain, step, key)
        keyed[stage.plan.index] = KeyedStage(stage, tuple(step_keys), tuple(all_inputs), chain, base)
    return keyed


def chain_behind(chain: CacheKey, step: LayerStep, key: CacheKey) -> CacheKey:
    """The chain of a stage after a step with this key."""
    return keys.linked_chain(chain, key) if isinstance(step, CopyFiles) and step.link else key


def stage_reads(step: LayerStep) -> Iterator[tuple[int, int, Selection]]:
    """What a step takes from stages: the number of the mount, the stage, and which files."""
    for number, origin, selection in _taken(step):
        if isinstance(origin, StageSource):
            yield number, origin.index, selection


def _taken_contents(
    step: LayerStep, at: tuple[int, int], keyed: Mapping[int, KeyedStage], contents: Mapping[Position, CacheKey]
) -> dict[int, str]:
    """What stands for the files that a step takes, by number."""
    remotes = len(step.remotes) if isinstance(step, CopyFiles) else 0
    taken = {number: contents[*at, number].hex for number in range(1, remotes + 1)}
    for number, origin, selection in _taken(step):
        match origin:
            case StageSource(index):
                taken[number] = keys.stage_content(keyed[index].end, selection)
            case ContextSource():
                taken[number] = contents[*at, number].hex
    return taken
