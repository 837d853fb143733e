"""``RUN --mount``, from what the Dockerfile asks for to what the command gets."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.dockerfile.instructions import RUN_DOCUMENTS
from builder.dockerfile.mounts import Mount
from builder.errors import BuildError
from builder.execution.copy import Source, check_unchanged, collect
from builder.execution.stage_root import StageRoot
from builder.layer.rootfs import Tree
from builder.options import SecretFile, StepSecrets
from builder.planning.graph import Position
from builder.planning.sources import ContextSource, Selection, StageSource
from builder.planning.steps import RunCommand, StepMount
from builder.sandbox.agent_socket import forwarded_agent
from builder.sandbox.cache_mounts import CacheDirectories
from builder.sandbox.ids import give
from builder.sandbox.mount_preparation import put_source
from builder.sandbox.run_mounts import FileMount, LiveMount, RunMount, TmpfsMount, TreeMount
from cache.keys import CacheKey, KeyBuilder

MAX_SECRET_BYTES = 500 * 1024


@dataclass(slots=True)
class Mounted:
    """What a command gets, beside its own: mounts, and variables that are in no key."""

    mounts: list[RunMount] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mounting:
    """Provides the mounts of one build's steps. ``sources`` are what is taken from build contexts."""

    scratch: Path
    secrets: StepSecrets
    caches: CacheDirectories
    sources: Mapping[Position, tuple[Source, ...]]

    @asynccontextmanager
    async def mounted(
        self, step: RunCommand, at: tuple[int, int], root: StageRoot, roots: Mapping[int, StageRoot]
    ) -> AsyncIterator[Mounted]:
        """The step's mounts while the block runs in ``root``; ``roots`` are the stages that it takes files from.

        Raises BuildError, with the step's place.
        """
        found = Mounted()
        if step.script is not None:
            name, content = step.script
            found.mounts.append(FileMount(f"{RUN_DOCUMENTS}/{name}", content.encode(), mode=0o755))
        async with AsyncExitStack() as stack:
            try:
                one = _OneStep(self, stack, found, root.can_mount, roots)
                for number, wanted in enumerate(step.mounts):
                    await one.add(wanted, (*at, number))
            except BuildError as error:
                raise error.at(step.span) from error
            except OSError as error:
                where = f" {error.filename}" if error.filename else ""
                raise BuildError(f"cannot mount{where}: {error.strerror or error}", step.span) from error
            yield found


@dataclass(frozen=True, slots=True)
class _OneStep:
    mounting: Mounting
    stack: AsyncExitStack
    found: Mounted
    can_mount: bool
    roots: Mapping[int, StageRoot]
    _held: dict[CacheKey, Path] = field(default_factory=dict)

    async def add(self, wanted: StepMount, position: Position) -> None:
        match wanted.mount.type:
            case "tmpfs":
                self.found.mounts.append(TmpfsMount(wanted.target, wanted.mount.size_bytes))
            case "bind":
                self.found.mounts.append(await self._tree(wanted, position))
            case "cache":
                self.found.mounts.append(await self._cache(wanted, position))
            case "secret":
                await asyncio.to_thread(self._secret, wanted)
            case "ssh":
                await self._agent(wanted)

    async def _tree(self, wanted: StepMount, position: Position) -> TreeMount:
        match wanted.origin:
            case StageSource(index):
                return await asyncio.to_thread(_stage_tree, wanted, self.roots[index])
            case ContextSource():
                path = await asyncio.to_thread(self._context_copy, position)
                return TreeMount(wanted.target, (path.parent,), path.name, path.is_dir(), wanted.mount.writable)
        raise AssertionError("a bind has an origin")

    def _context_copy(self, position: Position) -> Path:
        """What the context has there, without what is ignored, with the owner that it has in images."""
        sources = self.mounting.sources[position]
        (source,) = sources
        self.mounting.scratch.mkdir(parents=True, exist_ok=True)
        path = put_source(source, Path(tempfile.mkdtemp(prefix="bind-", dir=self.mounting.scratch)))
        check_unchanged(sources)
        return path

    async def _cache(self, wanted: StepMount, position: Position) -> LiveMount:
        mount = wanted.mount
        key = _cache_key(wanted)
        if key not in self._held:
            tree = await self._tree(wanted, position) if wanted.origin else None
            # A directory that has to be moved into the root serves one step at a time.
            sharing = "locked" if mount.sharing == "shared" and not self.can_mount else mount.sharing
            hold = self.mounting.caches.hold(key, sharing, lambda directory: _begin(directory, mount, tree))
            self._held[key] = await self.stack.enter_async_context(hold)
        return LiveMount(wanted.target, self._held[key], mount.writable)

    def _secret(self, wanted: StepMount) -> None:
        mount = wanted.mount
        name = mount.id or mount.source or os.path.basename(mount.target)
        content = _read_secret(name, self.mounting.secrets)
        if content is None:
            if mount.required:
                raise BuildError(f"the secret {name!r} is required: give it by --secret id={name},src=FILE")
            return
        if mount.env:
            self.found.environment[mount.env] = content.decode("utf-8", "surrogateescape")
        if wanted.target:
            mode = 0o400 if mount.mode is None else mount.mode
            self.found.mounts.append(FileMount(wanted.target, content, mode, mount.uid or 0, mount.gid or 0))

    async def _agent(self, wanted: StepMount) -> None:
        mount = wanted.mount
        name = mount.id or "default"
        agent = self.mounting.secrets.agents.get(name)
        if agent is None:
            if mount.required:
                raise BuildError(f"the SSH agent {name!r} is required: give it by --ssh {name}=SOCKET")
            return
        self.mounting.scratch.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="agent-", dir=self.mounting.scratch))
        owner = (mount.uid or 0, mount.gid or 0)
        mode = 0o600 if mount.mode is None else mount.mode
        path = await self.stack.enter_async_context(forwarded_agent(agent, directory, owner, mode))
        self.found.mounts.append(LiveMount(wanted.target, path))
        self.found.environment.setdefault("SSH_AUTH_SOCK", wanted.target)


def _stage_tree(wanted: StepMount, root: StageRoot) -> TreeMount:
    tree = root.tree
    source = tree.resolve(wanted.mount.source)
    status = tree.lstat(source)
    if status is None and source:
        raise BuildError(f"the source {wanted.mount.source!r} of the mount on {wanted.target} is not there")
    is_directory = not source or os.path.isdir(tree.real_path(source))
    return TreeMount(wanted.target, tuple(root.directories), source, is_directory, wanted.mount.writable)


def _cache_key(wanted: StepMount) -> CacheKey:
    """What makes two cache mounts the same: their name, what they begin with, and as whose."""
    mount = wanted.mount
    key = KeyBuilder("cache-mount").text("id", mount.id or wanted.target)
    key.items("begins", (mount.from_, mount.source))
    return key.items("access", map(str, (mount.mode, mount.uid, mount.gid))).key()


def _begin(directory: Path, mount: Mount, tree: TreeMount | None) -> None:
    """What a new cache holds: nothing, or a copy of a tree."""
    if tree is not None:
        (source,) = collect(Tree(tree.directories), Selection(patterns=(tree.source or "/",)))
        directory.rmdir()
        put_source(source, directory.parent, directory.name)
    if mount.mode is not None or mount.uid is not None or mount.gid is not None or tree is None:
        directory.chmod(0o755 if mount.mode is None else mount.mode)
        give(directory, mount.uid or 0, mount.gid or 0)


def _read_secret(name: str, secrets: StepSecrets) -> bytes | None:
    """The secret's content; None when nobody has given it."""
    given = secrets.values.get(name)
    if given is None:
        return None
    if not isinstance(given, SecretFile):
        return given.reveal().encode("utf-8", "surrogateescape")
    try:
        with given.path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise BuildError(f"cannot read the secret {name!r} from {given.path}: {error.strerror}") from error
    if len(content) > MAX_SECRET_BYTES:
        raise BuildError(f"the secret {name!r} is larger than {MAX_SECRET_BYTES} bytes")
    return content
