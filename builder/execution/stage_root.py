"""The file system of a stage while it is built: layers are put on it, commands run in it.

Two kinds, after the sandbox's ladder. On overlayfs each layer lies in a directory of its own and a command's upper
directory is the next one; stages that share layers share their directories. Without overlayfs a stage has one
directory, and what a command changed is found by comparing it before and after.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from builder.execution.unpacking import Unpacking, finished
from builder.layer.changes import Change
from builder.layer.rootfs import Tree
from builder.layer.snapshot import fingerprint, overlay_changes, walk_changes
from builder.layer.unpacked import UnpackedLayers
from builder.sandbox.isolation import Isolation, Rung
from builder.sandbox.run import DirectoryRoot, OverlayRoot, RunResult, RunSpec, run_step
from cache.oci.digest import Digest
from cache.oci.layer import Layer, chain_id

Output = Callable[[bytes], None]
LOOK_S = 0.05
PATIENCE_S = 300.0
"""How long a build waits for another one's layer: that one may stand still."""


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

    async def apply(self, layers: Sequence[Layer]) -> None:
        """Puts layers on top, lowest first; those that are not on this machine are fetched, all at once."""

    async def run(self, spec: RunSpec, on_output: Output) -> tuple[RunResult, list[Change]]:
        """Runs a command in the files, and says what it changed. The files are then as the command left them."""

    def ran(self, layer: Layer | None) -> None:
        """Names what the last command changed: it is this layer (None when it changed nothing)."""


@dataclass(slots=True)
class RootFactory:
    """Makes the stage roots of one build, and owns the directories that they share.

    ``probe`` says how commands can be isolated here; it is called in a thread when the first root is needed, because a
    build that finds everything in the cache needs none. Roots lie under ``work``, the build's own directory; unpacked
    layers are shared with other builds of ``state_dir``.
    """

    probe: Callable[[], Isolation]
    state_dir: Path
    work: Path
    unpacking: Unpacking
    _isolation: Isolation | None = None
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _beginning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _shared: UnpackedLayers | None = None
    _directories: dict[Digest, asyncio.Future[Path]] = field(default_factory=dict)
    _made: int = 0

    async def new_root(self) -> StageRoot:
        """An empty file system. Raises BuildError when no kind of isolation works here."""
        async with self._probing:
            if self._isolation is None:
                self._isolation = await asyncio.to_thread(self.probe)
        if self._isolation.rung is not Rung.OVERLAY:
            return _DirectoryStageRoot(self, self._isolation, self.new_directory())
        if self._shared is None:
            self._shared = UnpackedLayers.below(self.state_dir)
        return _OverlayStageRoot(self, self._shared, self._isolation)

    async def close(self) -> None:
        """Ends what is still being unpacked, and gives the shared directories up."""
        await self.unpacking.close()
        if self._shared is not None:
            await asyncio.to_thread(self._shared.close)

    def new_directory(self) -> Path:
        """A new directory of the build's own."""
        self._made += 1
        directory = self.work / "roots" / str(self._made)
        directory.mkdir(parents=True, mode=0o755)
        directory.chmod(0o755)
        return directory

    async def directory(self, chain: Digest, make: Callable[[], Coroutine[Any, Any, Path]]) -> asyncio.Future[Path]:
        """The directory of the last layer of a chain; where no stage of this build has it yet, ``make`` has begun."""
        async with self._beginning:
            if chain not in self._directories:
                self._directories[chain] = await self.unpacking.begin(make)
        return self._directories[chain]

    def share(self, chain: Digest, directory: Path) -> None:
        """Lets other stages on the same chain use the directory; it is not written to any more."""
        self._directories[chain] = done = asyncio.get_running_loop().create_future()
        done.set_result(directory)


class _OverlayStageRoot:
    def __init__(self, factory: RootFactory, shared: UnpackedLayers, isolation: Isolation) -> None:
        self._factory = factory
        self._shared = shared
        self._isolation = isolation
        self._chain: Digest | None = None
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

    async def apply(self, layers: Sequence[Layer]) -> None:
        stack = _chains(self._chain, layers)
        begun: list[asyncio.Future[Path]] = []
        for chain, layer in stack:
            make = partial(self._unpacked, chain, layer, partial(self._tree_with, tuple(begun)))
            begun.append(await self._factory.directory(chain, make))
        for (chain, _), directory in zip(stack, await finished(begun), strict=True):
            self._push(chain, directory)

    async def _tree_with(self, begun: Sequence[asyncio.Future[Path]]) -> Tree:
        """The tree when these directories, lowest first, lie on what is there now."""
        below = self._directories
        return Tree([*reversed(await finished(begun)), *below])

    async def _unpacked(self, chain: Digest, layer: Layer, below: Callable[[], Coroutine[Any, Any, Tree]]) -> Path:
        """The layer's directory: another build's, waited for where that one is about to make it, or one made here."""
        patient_until = time.monotonic() + PATIENCE_S
        while (kept := await asyncio.to_thread(self._shared.take, chain)) is None:
            if self._shared.begin(chain):
                try:
                    kept = await asyncio.to_thread(self._shared.take, chain)
                    return kept or await self._unpacked_here(chain, layer, below)
                finally:
                    self._shared.end(chain)
            if time.monotonic() > patient_until:
                return await self._unpacked_here(chain, layer, below)
            await asyncio.sleep(LOOK_S)
        return kept

    async def _unpacked_here(self, chain: Digest, layer: Layer, below: Callable[[], Coroutine[Any, Any, Tree]]) -> Path:
        directory = self._factory.new_directory()
        whole = await self._factory.unpacking.unpack(layer, directory, below, overlay=True)
        return await asyncio.to_thread(self._shared.keep, chain, directory) if whole else directory

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
            chain = chain_id(self._chain, layer.diff_id)
            self._factory.share(chain, self._upper)
            self._push(chain, self._upper)

    def _push(self, chain: Digest, directory: Path) -> None:
        self._chain = chain
        self._directories.insert(0, directory)


class _DirectoryStageRoot:
    def __init__(self, factory: RootFactory, isolation: Isolation, directory: Path) -> None:
        self._factory = factory
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

    async def apply(self, layers: Sequence[Layer]) -> None:
        begun: list[asyncio.Task[bool]] = []
        for layer in layers:
            begun.append(await self._factory.unpacking.begin(partial(self._put_on, layer, tuple(begun))))
        await finished(begun)

    async def _put_on(self, layer: Layer, below: Sequence[asyncio.Task[bool]]) -> bool:
        async def there() -> Tree:
            await finished(below)
            return self.tree

        return await self._factory.unpacking.unpack(layer, self._directory, there, overlay=False)

    async def run(self, spec: RunSpec, on_output: Output) -> tuple[RunResult, list[Change]]:
        before = await asyncio.to_thread(fingerprint, self._directory)
        root = DirectoryRoot(self._directory)
        result = await run_step(self._isolation, root, spec, on_output)
        return result, await asyncio.to_thread(walk_changes, self._directory, before, result.ignore)

    def ran(self, layer: Layer | None) -> None:
        """The command has already changed the one directory."""


def _chains(below: Digest | None, layers: Sequence[Layer]) -> list[tuple[Digest, Layer]]:
    """Each layer after its chain id, with what lies below."""
    found = []
    for layer in layers:
        below = chain_id(below, layer.diff_id)
        found.append((below, layer))
    return found
