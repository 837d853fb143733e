"""RUN, COPY, ADD and WORKDIR → steps that make layers, with everything expanded (pure)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from builder.contexts.remote import RemoteSource, parse_remote
from builder.contexts.remote import shown as redacted
from builder.dockerfile import instructions as ins
from builder.dockerfile.expansion import expand_document
from builder.dockerfile.instructions import is_remote
from builder.dockerfile.mounts import read_mount
from builder.dockerfile.statement import did_you_mean
from builder.errors import DockerfileError
from builder.events import StepName
from builder.execution.chmod import ModeChange
from builder.planning import history, metadata
from builder.planning.sources import ContextSource, Origin, Selection
from builder.planning.stage_scope import Arguments, StageScope
from builder.planning.steps import PROXY_ARGUMENTS, CopyFiles, MakeDirectory, Network, RunCommand, StepMount


@dataclass(frozen=True, slots=True)
class WorkEvaluator:
    """Makes the step of one instruction; ``takes_from`` is what each ``--from`` of it names."""

    scope: StageScope
    arguments: Arguments
    name: StepName
    takes_from: Mapping[int, Origin]

    def run(self, instruction: ins.Run) -> RunCommand:
        """RUN."""
        keyed = self.scope.variables()
        given = self.arguments.given
        proxies = {name: given[name] for name in sorted(PROXY_ARGUMENTS) if name in given and name not in keyed}
        argv = metadata.shell_argv(self.scope.config, instruction.command)
        script = instruction.script
        return RunCommand(
            name=self.name,
            span=instruction.span,
            config=self.scope.config,
            created_by=history.run_text(argv, {name: keyed.get(name, "") for name in self.scope.declared}),
            argv=argv,
            environment={**proxies, **keyed},
            keyed_environment=keyed,
            user=self.scope.config.config.user,
            cwd=self.scope.workdir,
            mounts=tuple(self._mount(number, word) for number, word in enumerate(instruction.mounts)),
            script=(script.name, script.content) if script else None,
            network=self._network(instruction),
        )

    def _mount(self, number: int, word: ins.Word) -> StepMount:
        mount = read_mount(word, self.scope.text)
        target = mount.target
        if mount.type == "secret" and not (target or mount.env):
            target = f"/run/secrets/{posixpath.basename(mount.id or mount.source)}"
        if mount.type == "ssh" and not target:
            target = f"/run/buildkit/ssh_agent.{number}"
        target = metadata.join_path(self.scope.workdir, target) if target else ""
        if target == "/":
            raise DockerfileError(f"--mount={word.text}: nothing can be mounted on the root", word.span)
        origin = self.takes_from.get(number)
        if mount.type == "bind" and origin is None:
            origin = ContextSource()
        return StepMount(mount, target, origin)

    def _network(self, instruction: ins.Run) -> Network:
        network = self.scope.optional_text(instruction.network) or "default"
        if instruction.network and network not in get_args(Network):
            hint = did_you_mean(network, get_args(Network))
            expected = ", ".join(get_args(Network))
            raise DockerfileError(f"--network={network}: expected {expected}{hint}", instruction.network.span)
        security = self.scope.optional_text(instruction.security) or "sandbox"
        if instruction.security and security != "sandbox":
            known = security == "insecure"
            reason = "steps never get more rights than a container has" if known else "expected sandbox"
            raise DockerfileError(f"--security={security}: {reason}", instruction.security.span)
        return cast("Network", network)

    def copy(self, instruction: ins.Copy | ins.Add) -> CopyFiles:
        """COPY and ADD."""
        scope = self.scope
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        sources = scope.texts(instruction.sources)
        remotes = self._remotes(instruction, sources)
        local = tuple(source for source in sources if not is_remote(source))
        destination = scope.text(instruction.destination)
        chown, chmod = scope.optional_text(instruction.chown), scope.optional_text(instruction.chmod)
        parents = isinstance(instruction, ins.Copy) and instruction.parents
        flags: dict[str, str | bool] = {"parents": parents, "chown": chown, "chmod": chmod}
        documents = tuple((document.name, self._document(document, instruction)) for document in instruction.documents)
        told = [redacted(source) if is_remote(source) else source for source in sources]
        told += [f"<<{name}" for name, _ in documents]
        return CopyFiles(
            name=self.name,
            span=instruction.span,
            config=scope.config,
            created_by=history.copy_text(keyword, told, destination, flags),
            selection=Selection(patterns=local, excludes=scope.texts(instruction.excludes), parents=parents),
            documents=documents,
            remotes=remotes,
            destination=destination,
            workdir=scope.workdir,
            origin=self.takes_from.get(0, ContextSource()),
            chown=chown,
            chmod=_mode(chmod, instruction.chmod) if instruction.chmod else None,
            unpack=isinstance(instruction, ins.Add) and instruction.unpack is not False,
            link=instruction.link and not instruction.chmod,
        )

    def _remotes(self, instruction: ins.Copy | ins.Add, sources: Sequence[str]) -> tuple[RemoteSource, ...]:
        """What ADD fetches; where ``--checksum`` is given, that is all it adds."""
        remotes: list[RemoteSource] = []
        checksum = instruction.checksum if isinstance(instruction, ins.Add) else None
        for source, word in zip(sources, instruction.sources, strict=True):
            if not is_remote(source):
                continue
            if isinstance(instruction, ins.Copy):
                raise DockerfileError("COPY cannot fetch: its sources are paths", word.span)
            options = {"keep_git_dir": instruction.keep_git_dir, "unpack": instruction.unpack is True}
            try:
                remotes.append(parse_remote(source, checksum=self.scope.optional_text(checksum), **options))
            except ValueError as error:
                raise DockerfileError(str(error), word.span) from None
        if checksum is not None and (len(remotes) != 1 or len(sources) > 1 or instruction.documents):
            raise DockerfileError("--checksum is for one source that is fetched", checksum.span)
        return tuple(remotes)

    def _document(self, document: ins.Document, instruction: ins.Copy | ins.Add) -> str:
        if not document.expand:
            return document.content
        return expand_document(ins.Word(document.content, instruction.span), self.scope.variables())

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


def _mode(text: str, word: ins.Word) -> ModeChange:
    try:
        return ModeChange.parse(text)
    except ValueError as error:
        raise DockerfileError(f"--chmod={text}: {error}", word.span) from None
