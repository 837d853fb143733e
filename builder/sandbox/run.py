"""Runs one command of a build in its root, in a child program, and hands its output on as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from builder.errors import BuildError
from builder.sandbox import records, stubs
from builder.sandbox.ids import may_set_groups
from builder.sandbox.isolation import Isolation, Rung, sandbox_command
from builder.sandbox.mount_preparation import MountPreparation
from builder.sandbox.run_mounts import RunMount

TAIL_BYTES = 16 * 1024
_KILL_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A command as the image sees it: ``argv[0]`` is looked up on the PATH of ``env``, inside the root.

    ``env`` is all of the environment. ``cwd`` is absolute and must exist. The ids are numbers, ``groups`` the
    supplementary ones. ``mounts`` are there for the time of the command. With the network ``none`` there is but
    loopback; ``host`` and ``default`` are the machine's. Without a ``hostname`` (and always under chroot) the machine's
    is kept. It is ended after ``timeout_s``, if that is given.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    hostname: str = ""
    mounts: tuple[RunMount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("argv is empty: expected a command")
        if not self.cwd.startswith("/"):
            raise ValueError(f"cwd is {self.cwd!r}: expected an absolute path")
        for text in (*self.argv, self.cwd, *self.env, *self.env.values()):
            if "\0" in text:
                raise ValueError(f"a command, its directory and its environment cannot hold a NUL byte: {text!r}")


@dataclass(frozen=True, slots=True)
class OverlayRoot:
    """Directories of layers, top first, under an ``upper`` that takes what the step changes.

    ``upper`` and ``work`` are new empty directories, on one file system, and serve one step only. The root directory
    of the image has the mode and owner of ``upper``. Deletions show up as character devices 0:0, opaque directories
    by the attribute ``user.overlay.opaque``.
    """

    lower: tuple[Path, ...]
    upper: Path
    work: Path


@dataclass(frozen=True, slots=True)
class DirectoryRoot:
    """One directory that holds the whole root and is changed in place; not a mount point itself."""

    path: Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended: its exit code (128+N after signal N), the last 16 KiB of its output, and what to leave out.

    ``ignore`` are paths (as in builder.layer.changes) that were made or replaced for the time of the step. They are as
    they were before, or gone, but their change times are not: they and all below them have no place in the layer.
    """

    exit_code: int
    output_tail: bytes
    ignore: frozenset[str]


async def run_step(
    isolation: Isolation,
    root: OverlayRoot | DirectoryRoot,
    spec: RunSpec,
    on_output: Callable[[bytes], None],
) -> RunResult:
    """Runs the command and returns when it, and all that it started, is gone.

    ``on_output`` is called on the event loop with each piece of output (both streams, in order) and must not block;
    what it raises ends the step and is raised here. Cancelling kills the command and everything it started, and
    puts the root in order, before the cancellation goes on.

    Raises:
        BuildError: The root could not be set up, the working directory is missing, or its time is over.
    """
    if spec.network == "none" and isolation.rung is Rung.CHROOT:
        raise BuildError(f"--network=none cannot be had here, where steps run by plain chroot: {isolation.reason}")
    scratch = await asyncio.to_thread(_make_scratch, root)
    step = _Step(on_output)
    mounts = MountPreparation(isolation.rung, scratch.with_name(scratch.name + "-mounts"))
    try:
        prepared = await asyncio.to_thread(mounts.prepare, spec.mounts)
        async with asyncio.timeout(spec.timeout_s) as limit:
            await step.run(_sandbox_spec(isolation, root, spec, scratch) | {"mounts": prepared})
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise BuildError(f"the command did not end within {spec.timeout_s:g} s and was stopped") from error
    finally:
        base = root.upper if isinstance(root, OverlayRoot) else root.path
        ignore = await asyncio.to_thread(_put_in_order, base, step.made, scratch)
        await asyncio.to_thread(mounts.clear)
    return RunResult(step.exit_code(), bytes(step.tail), ignore)


def _make_scratch(root: OverlayRoot | DirectoryRoot) -> Path:
    """A new directory beside the root. Below an overlay it is the lowest layer, and holds the points to mount on.

    So an image without ``/proc`` needs none made in the upper directory, where it would look like a change. What is
    not mounted on has no point: the step would see it, and a chown of it would be a change.
    """
    beside = root.work if isinstance(root, OverlayRoot) else root.path
    scratch = Path(tempfile.mkdtemp(prefix=".step-", dir=beside.parent))
    if isinstance(root, OverlayRoot):
        scratch.chmod(0o755)
        for name in ("dev", "proc", "sys", "etc"):
            (scratch / name).mkdir(0o755)
        for name in ("resolv.conf", "hosts"):
            if os.path.exists(f"/etc/{name}"):
                (scratch / "etc" / name).touch(0o644)
    return scratch


def _put_in_order(base: Path, made: list[stubs.Stub], scratch: Path) -> frozenset[str]:
    ignore = stubs.remove(base, scratch, made)
    shutil.rmtree(scratch)
    return ignore


def _sandbox_spec(
    isolation: Isolation, root: OverlayRoot | DirectoryRoot, spec: RunSpec, scratch: Path
) -> dict[str, Any]:
    """What builder/sandbox/program.py reads: plain values under the names that it knows."""
    if isinstance(root, OverlayRoot) is not (isolation.rung is Rung.OVERLAY):
        raise ValueError(f"a {type(root).__name__} cannot be used with {isolation}")
    values: dict[str, Any] = {
        "rung": isolation.rung.value,
        "user_namespace": isolation.user_namespace,
        "pid_namespace": isolation.pid_namespace,
        "may_set_groups": may_set_groups(),
        "scratch": str(scratch),
        "hostname": spec.hostname,
        "network": spec.network,
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "cwd": spec.cwd,
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": list(spec.groups),
    }
    if isinstance(root, DirectoryRoot):
        return values | {"root": str(root.path)}
    lower = [str(path) for path in (*root.lower, scratch)]
    return values | {"root": str(root.work), "lower": lower, "upper": str(root.upper)}


class _Step(asyncio.SubprocessProtocol):
    """One run of the sandbox program: feeds it, reads it, and ends it.

    Its standard input stays open as long as we want it to run: the end of that pipe, be it that we closed it or that
    we died, makes it kill all that it started.
    """

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self.tail = bytearray()
        self.made: list[stubs.Stub] = []
        self._on_output = on_output
        self._exit_code: int | None = None
        self._failure: Exception | None = None
        self._lifeline: asyncio.WriteTransport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, values: dict[str, Any]) -> None:
        """Returns when the program has ended; a cancellation waits for that too."""
        reading, writing = os.pipe()
        try:
            try:
                transport = await self._start(writing)
            finally:
                os.close(writing)
            try:
                self._lifeline = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
                self._lifeline.write(records.encode(values))
                await self._wait(transport)
            finally:
                transport.close()
                self._read_report(reading)
        finally:
            os.close(reading)

    def exit_code(self) -> int:
        """How the command ended. Raises what was in its way, or what ``on_output`` raised."""
        if self._failure is not None:
            raise self._failure
        if self._exit_code is None:
            tail = self.tail.decode(errors="replace").strip()
            raise BuildError(f"the sandbox program ended before its command did: {tail}")
        return self._exit_code

    async def _start(self, report_fd: int) -> asyncio.SubprocessTransport:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: self,
            *sandbox_command(),
            str(report_fd),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(report_fd,),
            env={},
            cwd="/",
            start_new_session=True,
        )
        return transport

    async def _wait(self, transport: asyncio.SubprocessTransport) -> None:
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), _KILL_AFTER_S)
            raise

    def _stop(self) -> None:
        """No output is handed on from here; the program kills its command when it sees the end of its input."""
        self._on_output = _drop
        if self._lifeline is not None:
            self._lifeline.abort()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Hands on one piece of output."""
        self.tail += data
        del self.tail[:-TAIL_BYTES]
        try:
            self._on_output(data)
        except Exception as error:  # the caller's own: the event loop would only log it
            self._failure = error
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """The program and its pipes are gone."""
        if not self._ended.done():
            self._ended.set_result(None)

    def _read_report(self, fd: int) -> None:
        """Takes the records that the program and its children have written (shapes: builder/sandbox/program.py)."""
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError), open(fd, "rb", closefd=False) as file:
            for kind, *values in records.read_all(file):
                self._take(kind, values)

    def _take(self, kind: str, values: list[Any]) -> None:
        if kind == "made":
            self.made.append(stubs.Stub(*values))
        elif kind == "error" and self._failure is None:
            self._failure = BuildError(values[0])
        elif kind == "exit":
            self._exit_code = values[0]


def _drop(_: bytes) -> None:
    """Where output goes once nobody wants it."""
