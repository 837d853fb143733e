"""A Dockerfile and what is asked of it → the stages that must be looked at, as a value (pure).

Stages that nothing needs are not in the plan. An image that is only copied from (``COPY --from=image``) is a stage of
its own without instructions, so that the engine knows one kind of source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.dockerfile import instructions as ins
from builder.dockerfile.expansion import expand
from builder.errors import DockerfileError, PlanError, Span
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference
from cache.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageBase:
    """The stage starts from an image of a registry."""

    reference: Reference
    span: Span


@dataclass(frozen=True, slots=True)
class StageBase:
    """The stage starts from another stage of the plan."""

    index: int


@dataclass(frozen=True, slots=True)
class ScratchBase:
    """The stage starts from nothing."""


Base = ImageBase | StageBase | ScratchBase


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage to build. ``index`` is its place in the plan's numbering, ``name`` what a person calls it.

    ``copy_from`` gives, for the position of a COPY in ``instructions``, the index of the stage that it copies from.
    """

    index: int
    name: str
    base: Base
    instructions: tuple[ins.Instruction, ...] = ()
    copy_from: Mapping[int, int] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[int, ...]:
        """The stages that this one refers to."""
        base = (self.base.index,) if isinstance(self.base, StageBase) else ()
        return tuple(dict.fromkeys((*base, *self.copy_from.values())))


@dataclass(frozen=True, slots=True)
class Plan:
    """The needed stages, each after those that it needs, and the index of the one that is wanted.

    ``global_args`` are the values of the ARGs before the first FROM, for stages that declare them again.
    """

    stages: tuple[StagePlan, ...]
    target: int
    global_args: Mapping[str, str]
    escape: str

    def stage(self, index: int) -> StagePlan:
        """The stage with this index."""
        return next(stage for stage in self.stages if stage.index == index)


def platform_args(target: Platform, build: Platform) -> dict[str, str]:
    """The platform arguments that a Dockerfile may ask for (Dockerfile reference, "Automatic platform ARGs")."""
    named = {"TARGET": target, "BUILD": build}
    args: dict[str, str] = {}
    for prefix, platform in named.items():
        args[f"{prefix}PLATFORM"] = str(platform)
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
    return args


def make_plan(
    dockerfile: ins.Dockerfile, build_args: Mapping[str, str], target: str, predefined: Mapping[str, str]
) -> Plan:
    """What ``target`` ("" = the last stage; a name or a number) needs. Raises DockerfileError or PlanError."""
    global_args = _global_args(dockerfile, build_args, predefined)
    planner = _Planner(dockerfile, {**predefined, **global_args})
    wanted = planner.find_target(target)
    planner.add(wanted)
    return Plan(tuple(planner.planned.values()), wanted, global_args, dockerfile.escape)


def _global_args(
    dockerfile: ins.Dockerfile, build_args: Mapping[str, str], predefined: Mapping[str, str]
) -> dict[str, str]:
    values: dict[str, str] = {}
    for arg in dockerfile.global_args:
        for argument in arg.arguments:
            name = argument.name.text
            if name in build_args:
                values[name] = build_args[name]
            elif argument.default is not None:
                scope = {**predefined, **values}
                values[name] = expand(argument.default, scope, dockerfile.escape)
    return values


class _Planner:
    """Walks from the target to all that it needs; ``planned`` keeps the order in which things must be built."""

    def __init__(self, dockerfile: ins.Dockerfile, scope: Mapping[str, str]) -> None:
        self.dockerfile = dockerfile
        self.scope = scope
        self.planned: dict[int, StagePlan] = {}
        self._images: dict[str, int] = {}
        self._names = {s.base.name: i for i, s in enumerate(dockerfile.stages) if s.base.name}

    def find_target(self, target: str) -> int:
        last = len(self.dockerfile.stages) - 1
        if not target:
            return last
        if (index := self._names.get(target.lower())) is not None:
            return index
        if target.isdecimal() and int(target) <= last:
            return int(target)
        known = ", ".join(self._names) or "none has a name"
        raise PlanError(f"no stage {target!r} to build: the Dockerfile's stages are {known}")

    def add(self, index: int) -> None:
        """Plans the stage after everything that it needs."""
        if index in self.planned:
            return
        text = self.dockerfile.stages[index]
        base = self._base(text.base, index)
        if isinstance(base, StageBase):
            self.add(base.index)
        copies = {
            position: self._source(instruction.from_, index)
            for position, instruction in enumerate(text.instructions)
            if isinstance(instruction, ins.Copy) and instruction.from_ is not None
        }
        name = text.base.name or f"stage-{index}"
        self.planned[index] = StagePlan(index, name, base, text.instructions, copies)

    def _base(self, base: ins.From, index: int) -> Base:
        name = expand(base.image, self.scope, self.dockerfile.escape)
        if not name:
            raise DockerfileError(f"the base name {base.image.text!r} is empty after expansion", base.image.span)
        if name == "scratch":
            return ScratchBase()
        earlier = self._names.get(name.lower())
        if earlier is not None and earlier < index:
            return StageBase(earlier)
        return ImageBase(_reference(name, base.image.span), base.image.span)

    def _source(self, word: ins.Word, index: int) -> int:
        """The stage that a COPY --from names; an image becomes a stage of its own behind the last one."""
        text = word.text
        earlier = self._names.get(text.lower())
        if earlier is None and text.isdecimal():
            earlier = int(text)
        if earlier is not None:
            if earlier >= index:
                raise DockerfileError(f"COPY --from={text}: only an earlier stage can be copied from", word.span)
            self.add(earlier)
            return earlier
        if "$" in text:
            raise DockerfileError(
                f"COPY --from={text}: variables are not expanded here; give the image a stage name by FROM … AS",
                word.span,
            )
        if text not in self._images:
            number = self._images[text] = len(self.dockerfile.stages) + len(self._images)
            self.planned[number] = StagePlan(number, text, ImageBase(_reference(text, word.span), word.span))
        return self._images[text]


def _reference(name: str, span: Span) -> Reference:
    try:
        return Reference.parse(name)
    except InvalidReference as error:
        raise DockerfileError(str(error), span) from error
