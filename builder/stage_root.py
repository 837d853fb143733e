"""The file system of a stage while it is built: layers are put on it, commands run in it.

Two kinds, after the sandbox's ladder. On overlayfs each layer lies in a directory of its own and a command's upper
directory is the next one; stages that share layers share their directories. Without overlayfs a stage has one
directory, and what a command changed is found by comparing it before and after.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from builder.changes import Change
from builder.errors import BuildError
from builder.isolation import Isolation, Rung
from builder.rootfs import Tree
from builder.run import DirectoryRoot, OverlayRoot, RunResult, RunSpec, run_step
from builder.snapshot import fingerprint, overlay_changes, walk_changes
from builder.unpack import unpack_layer
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.media_types import layer_compression

Output = Callable[[bytes], None]


class StageRoot(Protocol):
    """A stage's files, lowest layers first put on."""

    @property
    def tree(self) -> Tree:
        """The files as they are now."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories that they lie in, top first."""

    @property
    def can_mount(self) -> bool:
        """Whether commands in it see mounts; without, what they ask for is moved or copied into the root."""

    async def apply(self, layer: Layer, blob: Path) -> None:
        """Puts a layer on top; ``blob`` is its compressed tar."""

    async def run(self, spec: RunSpec, on_output: Output) -> tuple[RunResult, list[Change]]:
        """Runs a command in the files, and says what it changed. The files are then as the command left them."""

    def ran(self, layer: Layer | None) -> None:
        """Names what the last command changed: it is this layer (None when it changed nothing)."""


@dataclass(slots=True)
class RootFactory:
    """Makes stage roots under a build's work directory, and owns the directories that they share.

    ``probe`` says how commands can be isolated here; it is called in a thread when the first root is needed, because a
    build that finds everything in the cache needs none.
    """

    probe: Callable[[], Isolation]
    work: Path
    _isolation: Isolation | None = None
    _unpacked: dict[tuple[Digest, ...], Path] = field(default_factory=dict)
    _made: int = 0

    async def new_root(self) -> StageRoot:
        """An empty file system. Raises BuildError when no kind of isolation works here."""
        if self._isolation is None:
            self._isolation = await asyncio.to_thread(self.probe)
        if self._isolation.rung is Rung.OVERLAY:
            return _OverlayStageRoot(self, self._isolation)
        return _DirectoryStageRoot(self._isolation, self.new_directory())

    def new_directory(self) -> Path:
        """A new directory with a short name: overlayfs takes all of them in one page of text."""
        self._made += 1
        directory = self.work / "roots" / str(self._made)
        directory.mkdir(parents=True, mode=0o755)
        directory.chmod(0o755)
        return directory

    def unpacked(self, chain: tuple[Digest, ...]) -> Path | None:
        """The directory of the last layer of this chain of diff_ids, where a stage has already unpacked it."""
        return self._unpacked.get(chain)

    def share(self, chain: tuple[Digest, ...], directory: Path) -> None:
        """Lets other stages on the same chain use the directory; it is not written to any more."""
        self._unpacked[chain] = directory


class _OverlayStageRoot:
    def __init__(self, factory: RootFactory, isolation: Isolation) -> None:
        self._factory = factory
        self._isolation = isolation
        self._chain: tuple[Digest, ...] = ()
        self._directories: list[Path] = []
        self._upper: Path | None = None

    @property
    def tree(self) -> Tree:
        return Tree(self._directories)

    @property
    def directories(self) -> tuple[Path, ...]:
        return tuple(self._directories)

    @property
    def can_mount(self) -> bool:
        return True

    async def apply(self, layer: Layer, blob: Path) -> None:
        chain = (*self._chain, layer.diff_id)
        directory = self._factory.unpacked(chain)
        if directory is None:
            directory = self._factory.new_directory()
            await asyncio.to_thread(_unpack, layer, blob, directory, self.tree)
        self._push(chain, directory)

    async def run(self, spec: RunSpec, on_output: Output) -> tuple[RunResult, list[Change]]:
        self._upper = self._new_upper()
        root = OverlayRoot(
            lower=tuple(self._directories) or (self._factory.new_directory(),),
            upper=self._upper,
            work=self._factory.new_directory(),
        )
        result = await run_step(self._isolation, root, spec, on_output)
        return result, await asyncio.to_thread(overlay_changes, self._upper, self.tree, result.ignore)

    def _new_upper(self) -> Path:
        """A directory for what a command changes; overlayfs shows its owner and mode as those of the root."""
        upper = self._factory.new_directory()
        if (root := self.tree.lstat("")) is not None:
            os.chown(upper, root.st_uid, root.st_gid)
            upper.chmod(stat.S_IMODE(root.st_mode))
        return upper

    def ran(self, layer: Layer | None) -> None:
        if layer is not None and self._upper is not None:
            self._push((*self._chain, layer.diff_id), self._upper)

    def _push(self, chain: tuple[Digest, ...], directory: Path) -> None:
        self._factory.share(chain, directory)
        self._chain = chain
        self._directories.insert(0, directory)


class _DirectoryStageRoot:
    def __init__(self, isolation: Isolation, directory: Path) -> None:
        self._isolation = isolation
        self._directory = directory

    @property
    def tree(self) -> Tree:
        return Tree([self._directory])

    @property
    def directories(self) -> tuple[Path, ...]:
        return (self._directory,)

    @property
    def can_mount(self) -> bool:
        return self._isolation.rung is not Rung.CHROOT

    async def apply(self, layer: Layer, blob: Path) -> None:
        await asyncio.to_thread(_unpack, layer, blob, self._directory, None)

    async def run(self, spec: RunSpec, on_output: Output) -> tuple[RunResult, list[Change]]:
        before = await asyncio.to_thread(fingerprint, self._directory)
        root = DirectoryRoot(self._directory)
        result = await run_step(self._isolation, root, spec, on_output)
        return result, await asyncio.to_thread(walk_changes, self._directory, before, result.ignore)

    def ran(self, layer: Layer | None) -> None:
        """The command has already changed the one directory."""


def _unpack(layer: Layer, blob: Path, directory: Path, lower: Tree | None) -> None:
    """Unpacks a layer. Raises BuildError when its content is not what the image's configuration says."""
    compression = layer_compression(layer.descriptor.media_type)
    with blob.open("rb") as source:
        unpacked = unpack_layer(source, compression, directory, overlay=lower is not None, lower=lower)
    if unpacked.diff_id != layer.diff_id:
        raise BuildError(
            f"layer {layer.descriptor.digest} does not hold what its image says: expected diff_id {layer.diff_id},"
            f" got {unpacked.diff_id}"
        )
