"""Instructions → steps: variables expanded, paths made absolute, the image's configuration followed (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from builder import history, metadata
from builder.dockerfile import instructions as ins
from builder.dockerfile.expansion import expand, expand_words
from builder.errors import DockerfileError, PlanError, Span
from builder.events import StepName
from builder.plan import ImageBase, Plan, ScratchBase, StageBase, StagePlan
from builder.steps import (
    PROXY_ARGUMENTS,
    CopyFiles,
    MakeDirectory,
    Metadata,
    RunCommand,
    StageSteps,
    Step,
)
from cache.oci.config import ImageConfig, scratch_config
from cache.oci.descriptor import Platform

_OCTAL_MODE = re.compile(r"0?[0-7]{1,4}")


@dataclass(frozen=True, slots=True)
class Arguments:
    """Values for ARG: from the command line, from before the first FROM, and predefined for the platform."""

    given: Mapping[str, str]
    global_args: Mapping[str, str]
    predefined: Mapping[str, str]

    def value(self, name: str) -> str | None:
        """The value of an ARG without a default; None when nothing gives it one."""
        for values in (self.given, self.global_args, self.predefined):
            if name in values:
                return values[name]
        return None


def evaluate_plan(
    plan: Plan, configs: Mapping[int, ImageConfig], arguments: Arguments, platform: Platform
) -> tuple[StageSteps, ...]:
    """The steps of each needed stage, in building order; ``configs`` has the configuration of every base image.

    Raises DockerfileError with the place of what cannot be expanded or understood.
    """
    evaluated: dict[int, StageSteps] = {}
    scopes: dict[int, _Scope] = {}
    for stage in plan.stages:
        match stage.base:
            case ScratchBase():
                base, scope = scratch_config(platform), _Scope()
            case StageBase(index):
                base, scope = evaluated[index].config, scopes[index].copy()
            case ImageBase(span=span):
                base, scope = _image_config(configs[stage.index], span), _Scope()
        start = metadata.stage_config(base)
        evaluator = _Evaluator(stage, arguments, plan.escape, start, scope)
        evaluated[stage.index] = StageSteps(stage, start, tuple(evaluator.steps()))
        scopes[stage.index] = scope
    return tuple(evaluated.values())


def _image_config(config: ImageConfig, span: Span) -> ImageConfig:
    if config.config.on_build:
        raise PlanError("the base image has ONBUILD triggers, which are not supported yet", span)
    return config


@dataclass(slots=True)
class _Scope:
    """The build arguments declared so far in a stage and the stages below it.

    ``latest`` holds the names whose last definition was an ARG: of ARG and ENV the later one wins.
    """

    arguments: dict[str, str] = field(default_factory=dict)
    latest: set[str] = field(default_factory=set)

    def copy(self) -> _Scope:
        return _Scope(dict(self.arguments), set(self.latest))


class _Evaluator:
    """Goes through one stage."""

    def __init__(self, stage: StagePlan, arguments: Arguments, escape: str, config: ImageConfig, scope: _Scope) -> None:
        self.stage = stage
        self.arguments = arguments
        self.escape = escape
        self.config = config
        self.scope = scope
        self.cmd_set = False

    def steps(self) -> Iterator[Step]:
        """The stage's steps, in order."""
        total = len(self.stage.instructions)
        for position, instruction in enumerate(self.stage.instructions):
            self.name = StepName(self.stage.name, position + 1, total, instruction.source)
            self.span = instruction.span
            try:
                yield self._step(position, instruction)
            except ValueError as error:
                raise DockerfileError(str(error), instruction.span) from error

    def _step(self, position: int, instruction: ins.Instruction) -> Step:
        match instruction:
            case ins.Run():
                return self._run(instruction)
            case ins.Copy() | ins.Add():
                return self._copy(instruction, self.stage.copy_from.get(position))
            case ins.Workdir():
                return self._workdir(instruction)
            case _:
                created_by = self._apply(instruction)
                return Metadata(name=self.name, span=self.span, config=self.config, created_by=created_by)

    def _apply(self, instruction: ins.Instruction) -> str:
        """Changes the configuration, and returns what the history says of it."""
        match instruction:
            case ins.Arg():
                return self._arg(instruction)
            case ins.Env():
                return self._env(instruction)
            case ins.Label():
                pairs = self._pairs(instruction.pairs)
                self.config = metadata.with_labels(self.config, pairs)
                return history.label_text(pairs)
            case ins.Expose():
                ports = metadata.parse_ports(port for word in instruction.ports for port in self._words(word))
                self.config = metadata.with_ports(self.config, ports)
                return history.expose_text(ports)
            case ins.Volume():
                paths = self._texts(instruction.paths)
                self.config = metadata.with_volumes(self.config, paths)
                return history.volume_text(paths)
            case _:
                return self._apply_to_process(instruction)

    def _apply_to_process(self, instruction: ins.Instruction) -> str:
        """The same for the instructions that say how a container's process is started."""
        match instruction:
            case ins.User():
                user = self._text(instruction.user)
                self.config = metadata.with_user(self.config, user)
                return history.user_text(user)
            case ins.StopSignal():
                signal = self._text(instruction.signal)
                self.config = metadata.with_stop_signal(self.config, signal)
                return history.stop_signal_text(signal)
            case ins.Shell():
                self.config = metadata.with_shell(self.config, instruction.argv)
                return history.shell_text(instruction.argv)
            case ins.Cmd():
                self.cmd_set = True
                self.config = metadata.with_cmd(self.config, instruction.command)
                return history.cmd_text(metadata.shell_argv(self.config, instruction.command))
            case ins.Entrypoint():
                command = instruction.command
                self.config = metadata.with_entrypoint(self.config, command, cmd_set=self.cmd_set)
                return history.entrypoint_text(metadata.shell_argv(self.config, command))
            case _:
                raise AssertionError(f"{type(instruction).__name__} has no case")

    def _variables(self) -> dict[str, str]:
        """What words are expanded with and commands see: ENV and the declared ARGs."""
        arguments = self.scope.arguments
        environment = metadata.environment(self.config)
        latest = {name: arguments[name] for name in self.scope.latest}
        return {**arguments, **environment, **latest}

    def _text(self, word: ins.Word) -> str:
        return expand(word, self._variables(), self.escape)

    def _texts(self, words: Iterable[ins.Word]) -> tuple[str, ...]:
        return tuple(self._text(word) for word in words)

    def _words(self, word: ins.Word) -> tuple[str, ...]:
        return expand_words(word, self._variables(), self.escape)

    def _pairs(self, pairs: Iterable[ins.Pair]) -> list[tuple[str, str]]:
        variables = self._variables()
        return [(expand(p.key, variables, self.escape), expand(p.value, variables, self.escape)) for p in pairs]

    def _arg(self, instruction: ins.Arg) -> str:
        told: list[tuple[str, str | None]] = []
        for argument in instruction.arguments:
            name = argument.name.text
            value = self.arguments.given.get(name)
            if value is None and argument.default is not None:
                value = self._text(argument.default)
            if value is None:
                value = self.arguments.value(name)
            if value is not None:
                self.scope.arguments[name] = value
                self.scope.latest.add(name)
            told.append((name, value))
        return history.arg_text(told)

    def _env(self, instruction: ins.Env) -> str:
        pairs = self._pairs(instruction.pairs)
        if any(not name for name, _ in pairs):
            raise ValueError("the name of an ENV variable is empty after expansion")
        self.config = metadata.with_env(self.config, pairs)
        self.scope.latest -= {name for name, _ in pairs}
        return history.env_text(pairs)

    def _run(self, instruction: ins.Run) -> RunCommand:
        keyed = self._variables()
        given = self.arguments.given
        proxies = {name: given[name] for name in sorted(PROXY_ARGUMENTS) if name in given and name not in keyed}
        argv = metadata.shell_argv(self.config, instruction.command)
        return RunCommand(
            name=self.name,
            span=self.span,
            config=self.config,
            created_by=history.run_text(argv, self.scope.arguments),
            argv=argv,
            environment={**proxies, **keyed},
            keyed_environment=keyed,
            user=self.config.config.user,
            cwd=self.config.config.working_dir or "/",
        )

    def _copy(self, instruction: ins.Copy | ins.Add, from_stage: int | None) -> CopyFiles:
        sources = self._texts(instruction.sources)
        for source, word in zip(sources, instruction.sources, strict=True):
            if isinstance(instruction, ins.Add) and ins.is_remote(source):
                raise DockerfileError("ADD of a URL or a git repository is not supported yet", word.span)
        destination = self._text(instruction.destination)
        chown = self._text(instruction.chown) if instruction.chown else ""
        chmod = self._text(instruction.chmod) if instruction.chmod else ""
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        return CopyFiles(
            name=self.name,
            span=self.span,
            config=self.config,
            created_by=history.copy_text(keyword, sources, destination, chown=chown, chmod=chmod),
            sources=sources,
            destination=destination,
            workdir=self.config.config.working_dir or "/",
            from_stage=from_stage,
            chown=chown,
            chmod=_parse_mode(chmod, instruction.chmod) if instruction.chmod else None,
            unpack=isinstance(instruction, ins.Add),
        )

    def _workdir(self, instruction: ins.Workdir) -> MakeDirectory:
        path = self._text(instruction.path)
        if not path:
            raise DockerfileError("the path of WORKDIR is empty after expansion", instruction.path.span)
        self.config = metadata.with_workdir(self.config, path)
        absolute = self.config.config.working_dir
        return MakeDirectory(
            name=self.name,
            span=self.span,
            config=self.config,
            created_by=history.workdir_text(absolute),
            path=absolute,
            user=self.config.config.user,
        )


def _parse_mode(text: str, word: ins.Word) -> int:
    """The mode of ``--chmod``, an octal number."""
    if not _OCTAL_MODE.fullmatch(text):
        raise DockerfileError(f"--chmod={text}: expected an octal mode such as 755 or 0644", word.span)
    return int(text, 8)
