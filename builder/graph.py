"""The needed stages with the key of every step: what a build looks up before it does anything (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from builder import keys
from builder.plan import StageBase
from builder.steps import CopyFiles, LayerStep, MakeDirectory, Metadata, RunCommand, StageSteps, Step
from cache.keys import CacheKey

Position = tuple[int, int]
"""A step's stage index and its place in the stage, from 0."""


@dataclass(frozen=True, slots=True)
class KeyedStage:
    """A stage's steps, each with its key (None for metadata), and the key that the whole stage ends with."""

    stage: StageSteps
    keys: tuple[CacheKey | None, ...]
    end: CacheKey

    @property
    def index(self) -> int:
        return self.stage.plan.index

    def keyed_steps(self) -> Iterator[tuple[Step, CacheKey | None]]:
        """The steps with their keys, in order."""
        return zip(self.stage.steps, self.keys, strict=True)


def context_copies(stages: Sequence[StageSteps]) -> Iterator[tuple[Position, CopyFiles]]:
    """The steps whose keys need the content of files in the build context."""
    for stage in stages:
        for number, step in enumerate(stage.steps):
            if isinstance(step, CopyFiles) and step.from_stage is None:
                yield (stage.plan.index, number), step


def key_stages(
    stages: Sequence[StageSteps], contents: Mapping[Position, CacheKey], clamp_mtime_s: int | None
) -> dict[int, KeyedStage]:
    """The stages by index. ``stages`` come in building order; ``contents`` has the digest of every context copy."""
    keyed: dict[int, KeyedStage] = {}
    for stage in stages:
        base = stage.plan.base
        chain = (
            keyed[base.index].end if isinstance(base, StageBase) else keys.base_key(stage.base_config, clamp_mtime_s)
        )
        step_keys: list[CacheKey | None] = []
        for number, step in enumerate(stage.steps):
            if isinstance(step, Metadata):
                step_keys.append(None)
                continue
            chain = _step_key(chain, step, keyed, contents.get((stage.plan.index, number)))
            step_keys.append(chain)
        keyed[stage.plan.index] = KeyedStage(stage, tuple(step_keys), chain)
    return keyed


def _step_key(chain: CacheKey, step: LayerStep, keyed: Mapping[int, KeyedStage], content: CacheKey | None) -> CacheKey:
    match step:
        case RunCommand():
            return keys.run_key(chain, step)
        case MakeDirectory():
            return keys.directory_key(chain, step)
        case CopyFiles():
            if step.from_stage is not None:
                return keys.copy_key(chain, step, keys.stage_content(keyed[step.from_stage].end, step))
            if content is None:
                raise AssertionError(f"the content of {step.sources} was not read")
            return keys.copy_key(chain, step, content.hex)
