"""RUN, COPY, ADD and WORKDIR → steps that make layers, with everything expanded (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder import history, metadata
from builder.dockerfile import instructions as ins
from builder.errors import DockerfileError
from builder.events import StepName
from builder.stage_scope import Arguments, StageScope
from builder.steps import PROXY_ARGUMENTS, CopyFiles, MakeDirectory, RunCommand

_OCTAL_MODE = re.compile(r"0?[0-7]{1,4}")


@dataclass(frozen=True, slots=True)
class WorkEvaluator:
    """Makes the step of one instruction; ``takes_from`` is the stage that its ``--from`` names."""

    scope: StageScope
    arguments: Arguments
    name: StepName
    takes_from: int | None = None

    def run(self, instruction: ins.Run) -> RunCommand:
        """RUN."""
        keyed = self.scope.variables()
        given = self.arguments.given
        proxies = {name: given[name] for name in sorted(PROXY_ARGUMENTS) if name in given and name not in keyed}
        argv = metadata.shell_argv(self.scope.config, instruction.command)
        return RunCommand(
            name=self.name,
            span=instruction.span,
            config=self.scope.config,
            created_by=history.run_text(argv, self.scope.declared),
            argv=argv,
            environment={**proxies, **keyed},
            keyed_environment=keyed,
            user=self.scope.config.config.user,
            cwd=self.scope.workdir,
        )

    def copy(self, instruction: ins.Copy | ins.Add) -> CopyFiles:
        """COPY and ADD."""
        scope = self.scope
        sources = scope.texts(instruction.sources)
        for source, word in zip(sources, instruction.sources, strict=True):
            if isinstance(instruction, ins.Add) and ins.is_remote(source):
                raise DockerfileError("ADD of a URL or a git repository is not supported yet", word.span)
        destination = scope.text(instruction.destination)
        chown, chmod = scope.optional_text(instruction.chown), scope.optional_text(instruction.chmod)
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        return CopyFiles(
            name=self.name,
            span=instruction.span,
            config=scope.config,
            created_by=history.copy_text(keyword, sources, destination, chown=chown, chmod=chmod),
            sources=sources,
            destination=destination,
            workdir=scope.workdir,
            from_stage=self.takes_from,
            chown=chown,
            chmod=_parse_mode(chmod, instruction.chmod) if instruction.chmod else None,
            unpack=isinstance(instruction, ins.Add),
        )

    def workdir(self, instruction: ins.Workdir) -> MakeDirectory:
        """WORKDIR, which changes the configuration too."""
        scope = self.scope
        path = scope.text(instruction.path)
        if not path:
            raise DockerfileError("the path of WORKDIR is empty after expansion", instruction.path.span)
        scope.config = metadata.with_workdir(scope.config, path)
        absolute = scope.config.config.working_dir
        return MakeDirectory(
            name=self.name,
            span=instruction.span,
            config=scope.config,
            created_by=history.workdir_text(absolute),
            path=absolute,
            user=scope.config.config.user,
        )


def _parse_mode(text: str, word: ins.Word) -> int:
    """The mode of ``--chmod``, an octal number."""
    if not _OCTAL_MODE.fullmatch(text):
        raise DockerfileError(f"--chmod={text}: expected an octal mode such as 755 or 0644", word.span)
    return int(text, 8)
