"""A Dockerfile and what is asked of it → the stages that must be looked at, as a value (pure).

Stages that nothing needs are not in the plan. An image that is only copied from (``COPY --from=image``) is a stage of
its own without instructions, so that the engine knows one kind of source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from builder.contexts.locations import ImageContext, LayoutContext, NamedContext
from builder.dockerfile import instructions as ins
from builder.dockerfile.expansion import expand
from builder.dockerfile.mounts import mount_from
from builder.dockerfile.parser import parse_trigger
from builder.errors import DockerfileError, PlanError, Span
from builder.planning.sources import ContextSource, Origin, StageSource
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference
from cache.oci.reference import Reference


class ImageBase(msgspec.Struct, frozen=True):
    """The stage starts from an image of a registry or an OCI layout, for ``platform`` (None = what is built for).

    ``name`` is the image's as the Dockerfile has it, with its variables expanded.
    """

    reference: Reference | LayoutContext
    name: str
    span: Span
    platform: Platform | None = None


class StageBase(msgspec.Struct, frozen=True):
    """The stage starts from another stage of the plan."""

    index: int


class ScratchBase(msgspec.Struct, frozen=True):
    """The stage starts from nothing, for ``platform`` (None = the one that is built for)."""

    platform: Platform | None = None


Base = ImageBase | StageBase | ScratchBase


class StagePlan(msgspec.Struct, frozen=True):
    """A stage to build. ``index`` is its place in the plan's numbering, ``name`` what a person calls it.

    ``takes_from`` gives what each ``--from`` names, by the position in ``instructions`` and the number of the mount (0
    for a COPY): a stage, or a context of the command line. The triggers of the base (ONBUILD) come first.
    """

    index: int
    name: str
    base: Base
    instructions: tuple[ins.Instruction, ...] = ()
    takes_from: Mapping[tuple[int, int], Origin] = msgspec.field(default_factory=dict)

    @property
    def needs(self) -> tuple[int, ...]:
        """The stages that this one refers to."""
        base = (self.base.index,) if isinstance(self.base, StageBase) else ()
        stages = (origin.index for origin in self.takes_from.values() if isinstance(origin, StageSource))
        return tuple(dict.fromkeys((*base, *stages)))


class Plan(msgspec.Struct, frozen=True):
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


def predefined_args(target: Platform, build: Platform, target_stage: str) -> dict[str, str]:
    """The arguments that a Dockerfile may ask for (Dockerfile reference, "Automatic platform ARGs").

    ``target_stage`` is what the person who builds called it.
    """
    args = {"TARGETSTAGE": target_stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        args[f"{prefix}PLATFORM"] = str(platform)
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}OSVERSION"] = platform.os_version
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
    return args


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a Dockerfile: the stage to build ("" = the last one; a name or a number), and with what.

    ``image_triggers`` are the ONBUILD triggers of base images, by the index of the stage that starts from them; they
    are known only after a first plan has said which images those are. ``contexts`` are those that the command line
    gives names, in lower case: each stands in for the stage or image of that name.
    """

    target: str = ""
    build_args: Mapping[str, str] = msgspec.field(default_factory=dict)
    predefined: Mapping[str, str] = msgspec.field(default_factory=dict)
    image_triggers: Mapping[int, Sequence[str]] = msgspec.field(default_factory=dict)
    contexts: Mapping[str, NamedContext] = msgspec.field(default_factory=dict)


def make_plan(dockerfile: ins.Dockerfile, request: Request) -> Plan:
    """What the wanted stage needs. Raises DockerfileError or PlanError."""
    global_args = _global_args(dockerfile, request.build_args, request.predefined)
    planner = _Planner(dockerfile, {**request.predefined, **global_args}, request)
    wanted = planner.find_target(request.target)
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

    def __init__(self, dockerfile: ins.Dockerfile, scope: Mapping[str, str], request: Request) -> None:
        self.dockerfile = dockerfile
        self.scope = scope
        self.image_triggers = request.image_triggers
        self.contexts = request.contexts
        self.planned: dict[int, StagePlan] = {}
        self._images: dict[str, int] = {}
        self._names = {s.base.name: i for i, s in enumerate(dockerfile.stages) if s.base.name}  # the last of each

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
        instructions = (*self._files_of_base(text.base), *self._triggers(base, index), *text.instructions)
        takes_from = {
            (position, number): self._source(word, name, index)
            for position, instruction in enumerate(instructions)
            for number, word, name in _named_sources(instruction)
        }
        name = text.base.name or f"stage-{index}"
        self.planned[index] = StagePlan(index, name, base, instructions, takes_from)

    def _triggers(self, base: Base, index: int) -> list[ins.Instruction]:
        """What the base has put off until a build on it."""
        match base:
            case ImageBase(reference=reference):
                where, texts = f"ONBUILD of {reference}", self.image_triggers.get(index, ())
            case StageBase(below):
                where = f"ONBUILD of stage {self.planned[below].name}"
                texts = [i.trigger for i in self.planned[below].instructions if isinstance(i, ins.OnBuild)]
            case ScratchBase():
                return []
        return [parse_trigger(text, where) for text in texts]

    def _base(self, base: ins.From, index: int) -> Base:
        name = expand(base.image, self.scope, self.dockerfile.escape)
        if not name:
            raise DockerfileError(f"the base name {base.image.text!r} is empty after expansion", base.image.span)
        image = self._image(name)
        earlier = None if image or self._is_files(name) else self._stage_before(index, name.lower())
        if earlier is not None:
            return StageBase(earlier)
        if name == "scratch" or self._is_files(name):
            return ScratchBase(self._platform(base.platform))
        reference = image or _reference(name, base.image.span)
        return ImageBase(reference, name, base.image.span, self._platform(base.platform))

    def _stage_before(self, index: int, name: str) -> int | None:
        """The last stage of this name above the one with ``index``: a name may be given again."""
        return next((i for i in reversed(range(index)) if self.dockerfile.stages[i].base.name == name), None)

    def _files_of_base(self, base: ins.From) -> list[ins.Instruction]:
        """What puts a context that is files, and that a stage starts from, into it."""
        name = expand(base.image, self.scope, self.dockerfile.escape)
        if not self._is_files(name):
            return []
        return [parse_trigger(f"COPY --from={name} / /", f"the files of the context {name}")]

    def _is_files(self, name: str) -> bool:
        """Whether there is a context of this name that is not an image."""
        return name.lower() in self.contexts and self._image(name) is None

    def _image(self, name: str) -> Reference | LayoutContext | None:
        """The image that the context of this name is; None when it is files, or there is none."""
        context = self.contexts.get(name.lower())
        if isinstance(context, ImageContext):
            return context.reference
        return context if isinstance(context, LayoutContext) else None

    def _platform(self, word: ins.Word | None) -> Platform | None:
        """The platform of ``FROM --platform``."""
        if word is None:
            return None
        text = expand(word, self.scope, self.dockerfile.escape)
        try:
            return Platform.parse(text)
        except ValueError as error:
            raise DockerfileError(f"--platform={word.text}: {error}", word.span) from None

    def _source(self, word: ins.Word, text: str, index: int) -> Origin:
        """The stage or context that a ``--from`` names; an image becomes a stage of its own behind the last one."""
        if self._is_files(text):
            return ContextSource(text.lower())
        image = self._image(text)
        earlier = None if image else self._names.get(text.lower())
        if earlier is None and text.isdecimal():
            earlier = int(text)
        if earlier is not None:
            if earlier >= index:
                raise DockerfileError(f"from {text}: only an earlier stage can be taken from", word.span)
            self.add(earlier)
            return StageSource(earlier)
        if text not in self._images:
            number = self._images[text] = len(self.dockerfile.stages) + len(self._images)
            reference = image or _reference(text, word.span)
            base: Base = ScratchBase() if text == "scratch" else ImageBase(reference, text, word.span)
            self.planned[number] = StagePlan(number, text, base)
        return StageSource(self._images[text])


def _named_sources(instruction: ins.Instruction) -> Iterator[tuple[int, ins.Word, str]]:
    """Each ``--from`` of an instruction: its number, where it stands, and the name."""
    match instruction:
        case ins.Copy(from_=ins.Word() as word):
            if "$" in word.text:
                message = f"COPY --from={word.text}: variables are not expanded here"
                raise DockerfileError(f"{message}; give the image a stage name by FROM … AS", word.span)
            yield 0, word, word.text
        case ins.Run():
            for number, word in enumerate(instruction.mounts):
                if name := mount_from(word):
                    yield number, word, name


def _reference(name: str, span: Span) -> Reference:
    try:
        return Reference.parse(name)
    except InvalidReference as error:
        raise DockerfileError(str(error), span) from error
