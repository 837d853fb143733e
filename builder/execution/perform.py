"""Does one step: a command, a copy, a new directory. Each ends in a layer, or in none when nothing changed."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from builder import events
from builder.contexts.remotes import Remotes
from builder.errors import BuildError, StepFailed
from builder.execution.copy import Destination, Source, check_unchanged, collect, content_digest, place, unpack_archives
from builder.execution.image_users import User, resolve_owner, resolve_user
from builder.execution.mounting import Mounting
from builder.execution.placement import make_directory
from builder.execution.stage_root import StageRoot
from builder.layer.changes import Change, Entry
from builder.layer.rootfs import Tree
from builder.layer.storing import keep_layer
from builder.layer.tarlayer import write_layer
from builder.options import DEFAULT_LIMITS, Limits
from builder.outputs.exports import USUAL_LAYERS, LayerFormat
from builder.planning.graph import Position
from builder.planning.keys import copied_content
from builder.planning.sources import ContextSource, Selection, StageSource
from builder.planning.steps import CopyFiles, LayerStep, MakeDirectory, RunCommand
from builder.sandbox.foreign import ForeignCode
from builder.sandbox.run import RunSpec
from cache.disk.filesystem import FilesystemStore
from cache.oci.layer import Layer


@dataclass(frozen=True, slots=True)
class Performed:
    """What a step made. ``in_root``: the stage's files already hold the layer."""

    layer: Layer | None
    in_root: bool


@dataclass(frozen=True, slots=True)
class Performer:
    """Does steps in the files of a stage. ``sources`` are what the copies from the build context take."""

    store: FilesystemStore
    scratch: Path
    sources: Mapping[Position, tuple[Source, ...]]
    mounting: Mounting
    remotes: Remotes
    listen: events.Listener
    foreign: ForeignCode
    clamp_mtime_s: int | None = None
    layer_format: LayerFormat = USUAL_LAYERS
    limits: Limits = DEFAULT_LIMITS
    now_ns: Callable[[], int] = field(default=time.time_ns)

    async def perform(
        self, root: StageRoot, at: tuple[int, int], step: LayerStep, roots: Mapping[int, StageRoot]
    ) -> Performed:
        """Does the step ``at`` a place of the plan; ``roots`` are the stages that it takes files from.

        Raises BuildError.
        """
        match step:
            case RunCommand():
                return await self._run(root, at, step, roots)
            case MakeDirectory():
                changes = await asyncio.to_thread(self._make_directory, root.tree, step)
            case CopyFiles():
                fetched = await self._fetched(step)
                changes = await asyncio.to_thread(self._copy, root.tree, at, step, fetched, roots)
        layer = await self._layer(changes)
        if isinstance(step, CopyFiles) and isinstance(step.origin, ContextSource):
            await asyncio.to_thread(self._check_unchanged, at, step)
        return Performed(layer, in_root=False)

    def _check_unchanged(self, at: tuple[int, int], step: CopyFiles) -> None:
        """Raises BuildError where a file of the context was written to after the step's key was made of it.

        The layer would be saved under a key that stands for other content.
        """
        try:
            check_unchanged(self.sources.get((*at, 0), ()))
        except BuildError as error:
            raise error.at(step.span) from error

    async def content(self, root: StageRoot, step: LayerStep, selection: Selection) -> str:
        """What stands in a key for the files that a step takes from a stage. Raises BuildError."""

        def read() -> str:
            archives = isinstance(step, CopyFiles) and step.unpack
            return copied_content(content_digest(collect(root.tree, selection, detect_archives=archives)))

        try:
            return await asyncio.to_thread(read)
        except BuildError as error:
            raise error.at(step.span) from error

    async def _run(
        self, root: StageRoot, at: tuple[int, int], step: RunCommand, roots: Mapping[int, StageRoot]
    ) -> Performed:
        platform = step.config.platform
        if not await asyncio.to_thread(self.foreign.runs, platform):
            raise BuildError(
                f"the command is for {platform}, and this machine ({self.foreign.machine}) cannot run it: build on such"
                " a machine, install its emulator for binfmt_misc, or move the step to a stage"
                " FROM --platform=$BUILDPLATFORM",
                step.span,
            )
        user = await asyncio.to_thread(_user, root.tree, step)
        async with self.mounting.mounted(step, at, root, roots) as mounted:
            spec = RunSpec(
                argv=step.argv,
                env={"HOME": user.home, **step.environment, **mounted.environment},
                cwd=step.cwd,
                uid=user.uid,
                gid=user.gid,
                groups=user.groups,
                mounts=tuple(mounted.mounts),
                network=step.network,
                timeout_s=self.limits.step_s,
            )
            try:
                result, changes = await root.run(spec, lambda data: self.listen(events.StepOutput(step.name, data)))
            except BuildError as error:
                raise error.at(step.span) from error
        if result.exit_code != 0:
            raise StepFailed(f"the command ended with exit code {result.exit_code}", step.span, result.exit_code)
        layer = await self._layer(changes)
        root.ran(layer)
        return Performed(layer, in_root=True)

    def _make_directory(self, tree: Tree, step: MakeDirectory) -> list[Change]:
        """The directory and those above it, as far as they are missing, as the stage's user."""
        user = _user(tree, step)
        try:
            return make_directory(step.path, tree, (user.uid, user.gid), self.now_ns())
        except BuildError as error:
            raise BuildError(f"WORKDIR {step.path}: {error.message}", step.span) from error

    def _copy(
        self,
        tree: Tree,
        at: tuple[int, int],
        step: CopyFiles,
        fetched: Sequence[Source],
        roots: Mapping[int, StageRoot],
    ) -> list[Change]:
        if step.link:
            tree = Tree([])
        try:
            sources = (*self._sources(at, step, roots), *fetched, *self._documents(step))
            destination = Destination(
                path=step.destination,
                workdir=step.workdir,
                chown=_owner(tree, step),
                chmod=step.chmod,
                made_at_ns=self.now_ns(),
            )
            if step.unpack or step.remotes:
                sources = unpack_archives(sources, self.scratch, self.limits)
            return place(sources, destination, tree)
        except BuildError as error:
            raise error.at(step.span) from error

    def _sources(self, at: tuple[int, int], step: CopyFiles, roots: Mapping[int, StageRoot]) -> tuple[Source, ...]:
        """What is copied from a stage or a context."""
        if not step.selection.patterns:
            return ()
        match step.origin:
            case StageSource(index):
                return collect(roots[index].tree, step.selection, detect_archives=step.unpack)
            case ContextSource():
                return self.sources[*at, 0]

    async def _fetched(self, step: CopyFiles) -> list[Source]:
        try:
            return [await self.remotes.source(remote, step.selection) for remote in step.remotes]
        except BuildError as error:
            raise error.at(step.span) from error

    def _documents(self, step: CopyFiles) -> list[Source]:
        """The files that the Dockerfile holds."""
        return [self._written(name, content) for name, content in step.documents]

    def _written(self, name: str, content: str) -> Source:
        """A file that the Dockerfile holds."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(prefix="document-", dir=self.scratch)
        with open(handle, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape"))
        size_bytes = os.stat(path).st_size
        entry = Entry("", stat.S_IFREG | 0o644, mtime_ns=self.now_ns(), size_bytes=size_bytes, content=path)
        return Source(name, "file", (entry,))

    async def _layer(self, changes: Sequence[Change]) -> Layer | None:
        return await asyncio.to_thread(self._write, changes) if changes else None

    def _write(self, changes: Sequence[Change]) -> Layer:
        made = self.layer_format
        write = partial(
            write_layer, changes, clamp_mtime_s=self.clamp_mtime_s, compression=made.compression, level=made.level
        )
        return keep_layer(self.store, made.compression, write)


def _account_files(tree: Tree) -> tuple[str, str]:
    """The texts of the image's passwd and group files, empty where there are none."""
    texts = []
    for name in ("etc/passwd", "etc/group"):
        path = tree.resolve(name)
        found = tree.lstat(path)
        regular = found is not None and stat.S_ISREG(found.st_mode)
        texts.append(tree.real_path(path).read_text("utf-8", "surrogateescape") if regular else "")
    return texts[0], texts[1]


def _user(tree: Tree, step: RunCommand | MakeDirectory) -> User:
    try:
        return resolve_user(step.user, *_account_files(tree))
    except ValueError as error:
        raise BuildError(f"USER {step.user}: {error}", step.span) from error


def _owner(tree: Tree, step: CopyFiles) -> tuple[int, int] | None:
    if not step.chown:
        return None
    try:
        return resolve_owner(step.chown, *_account_files(tree))
    except ValueError as error:
        raise BuildError(f"--chown={step.chown}: {error}", step.span) from error
