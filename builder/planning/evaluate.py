"""Instructions → steps: variables expanded, paths made absolute, the image's configuration followed (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from builder.dockerfile import instructions as ins
from builder.errors import DockerfileError
from builder.events import StepName
from builder.planning import history, metadata
from builder.planning.evaluate_work import WorkEvaluator
from builder.planning.plan import ImageBase, Plan, ScratchBase, StageBase, StagePlan
from builder.planning.stage_scope import Arguments, StageScope
from builder.planning.steps import Metadata, StageSteps, Step
from cache.oci.config import Healthcheck, ImageConfig, scratch_config
from cache.oci.descriptor import Platform

__all__ = ["Arguments", "evaluate_plan"]


def evaluate_plan(
    plan: Plan, configs: Mapping[int, ImageConfig], arguments: Arguments, platform: Platform
) -> tuple[StageSteps, ...]:
    """The steps of each needed stage, in building order; ``configs`` has the configuration of every base image.

    Raises DockerfileError with the place of what cannot be expanded or understood.
    """
    evaluated: list[StageSteps] = []
    scopes: dict[int, StageScope] = {}
    for stage in plan.stages:
        match stage.base:
            case ScratchBase():
                base = scratch_config(stage.base.platform or platform)
                scope = StageScope(metadata.stage_config(base), plan.escape)
            case StageBase(index):
                scope = scopes[index].above()
            case ImageBase():
                scope = StageScope(metadata.stage_config(configs[stage.index]), plan.escape)
        scopes[stage.index] = scope
        start = scope.config
        steps = tuple(_Evaluator(stage, arguments, scope).steps())
        evaluated.append(StageSteps(stage, start, steps))
    return tuple(evaluated)


class _Evaluator(msgspec.Struct, frozen=True):
    """Goes through one stage."""

    stage: StagePlan
    arguments: Arguments
    scope: StageScope

    def steps(self) -> Iterator[Step]:
        """The stage's steps, in order."""
        total = len(self.stage.instructions)
        for position, instruction in enumerate(self.stage.instructions):
            name = StepName(self.stage.name, position + 1, total, instruction.source)
            try:
                yield self._step(position, instruction, name)
            except ValueError as error:
                raise DockerfileError(str(error), instruction.span) from error

    def _step(self, position: int, instruction: ins.Instruction, name: StepName) -> Step:
        takes_from = {number: origin for (at, number), origin in self.stage.takes_from.items() if at == position}
        work = WorkEvaluator(self.scope, self.arguments, name, takes_from)
        match instruction:
            case ins.Run():
                return work.run(instruction)
            case ins.Copy() | ins.Add():
                return work.copy(instruction)
            case ins.Workdir():
                return work.workdir(instruction)
            case _:
                created_by = self._apply(instruction)
                return Metadata(name=name, span=instruction.span, config=self.scope.config, created_by=created_by)

    def _apply(self, instruction: ins.Instruction) -> str:
        """Changes the configuration, and returns what the history says of it: of ONBUILD nothing, as in BuildKit."""
        scope = self.scope
        match instruction:
            case ins.Arg():
                return self._arg(instruction)
            case ins.Env():
                return self._env(instruction)
            case ins.Label():
                pairs = scope.pairs(instruction.pairs)
                scope.config = metadata.with_labels(scope.config, pairs)
                return history.label_text(pairs)
            case ins.Expose():
                ports = metadata.parse_ports(port for word in instruction.ports for port in scope.words(word))
                scope.config = metadata.with_ports(scope.config, ports)
                return history.expose_text(ports)
            case ins.Volume():
                paths = scope.texts(instruction.paths)
                scope.config = metadata.with_volumes(scope.config, paths)
                return history.volume_text(paths)
            case ins.OnBuild(trigger=trigger):
                scope.config = metadata.with_trigger(scope.config, trigger)
                return ""
            case ins.Maintainer(name=author):
                scope.config = metadata.with_author(scope.config, author)
                return history.maintainer_text(author)
            case _:
                return self._apply_to_process(instruction)

    def _apply_to_process(self, instruction: ins.Instruction) -> str:
        """The same for the instructions that say how a container's process is started and watched."""
        scope = self.scope
        match instruction:
            case ins.User():
                user = scope.text(instruction.user)
                scope.config = metadata.with_user(scope.config, user)
                return history.user_text(user)
            case ins.StopSignal():
                signal = scope.text(instruction.signal)
                scope.config = metadata.with_stop_signal(scope.config, signal)
                return history.stop_signal_text(signal)
            case ins.Shell():
                scope.config = metadata.with_shell(scope.config, instruction.argv)
                return history.shell_text(instruction.argv)
            case ins.Cmd():
                scope.cmd_set = True
                scope.config = metadata.with_cmd(scope.config, instruction.command)
                return history.cmd_text(metadata.shell_argv(scope.config, instruction.command))
            case ins.Entrypoint():
                command = instruction.command
                scope.config = metadata.with_entrypoint(scope.config, command, cmd_set=scope.cmd_set)
                return history.entrypoint_text(metadata.shell_argv(scope.config, command))
            case ins.HealthCheck():
                check = _health_check(instruction)
                scope.config = metadata.with_health_check(scope.config, check)
                return history.health_check_text(check)
            case _:
                raise AssertionError(f"{type(instruction).__name__} has no case")

    def _arg(self, instruction: ins.Arg) -> str:
        told: list[tuple[str, str | None]] = []
        for argument in instruction.arguments:
            name = argument.name.text
            value = self.arguments.given.get(name)
            if value is None and argument.default is not None:
                value = self.scope.text(argument.default)
            if value is None:
                value = self.arguments.value(name)
            self.scope.declare(name, value)
            told.append((name, value))
        return history.arg_text(told)

    def _env(self, instruction: ins.Env) -> str:
        pairs = self.scope.pairs(instruction.pairs)
        if any(not name for name, _ in pairs):
            raise ValueError("the name of an ENV variable is empty after expansion")
        self.scope.set_environment(pairs)
        return history.env_text(pairs)


def _health_check(instruction: ins.HealthCheck) -> Healthcheck:
    return Healthcheck(
        test=instruction.test,
        interval=instruction.interval_ns,
        timeout=instruction.timeout_ns,
        start_period=instruction.start_period_ns,
        start_interval=instruction.start_interval_ns,
        retries=instruction.retries,
    )
