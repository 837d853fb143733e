"""The root of a step, set up by the sandbox program: overlay, mounts and devices, or plain files for want of them.

A part of builder/sandbox/program.py: only the standard library, and nothing here may run in the builder's own process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from builder.sandbox.ids import give

TYPE_CHECKING = False  # as in builder/sandbox/program.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Spec = dict[str, Any]
    Report = Callable[..., int]

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
# Kept from the step as container runtimes do: with ids that are those of the machine, user 0 could write there.
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = ("kcore", "keys", "timer_list", "sched_debug", "latency_stats")
# userxattr: the only kind of marks that a user namespace may write; it also turns off redirects and metacopy, so that
# the upper directory alone tells all that has changed.
OVERLAY_OPTIONS = "userxattr,index=off"

libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, function: str, *args: object) -> int:
    """Calls the C library; ``what`` names the attempt in the OSError."""
    result: int = getattr(libc, function)(*args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); without a ``kind`` it binds ``source``, with all that is mounted below it."""
    flags = flags if kind or flags else BIND | REC
    encoded = [os.fsencode(text) if text else None for text in (source, target, kind)]
    what = f"mount {kind or source} on {target}"
    call(what, "mount", *encoded, ctypes.c_ulong(flags), os.fsencode(options) if options else None)


def make_read_only(target: str) -> None:
    """Makes a mount, and on newer kernels (5.12) those below it, read-only; keeps flags that the kernel has locked."""
    attributes = (ctypes.c_uint64 * 4)(RDONLY, 0, 0, 0)
    args = (SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    if libc.syscall(*args) != 0:
        locked = os.statvfs(target).f_flag & (NOSUID | NODEV | NOEXEC)
        mount("none", target, flags=REMOUNT | BIND | RDONLY | locked)


def mount_root(spec: Spec) -> None:
    """Makes ``root`` a mount point that holds the step's files."""
    try:
        mount("none", "/", flags=SLAVE | REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # "/" is no mount point: we are in somebody's chroot
            raise
    if spec["rung"] == "overlay":
        mount_overlay(spec)
    else:
        mount(spec["root"], spec["root"])


def mount_overlay(spec: Spec) -> None:
    """Mounts the overlay on its own work directory, which nothing else needs to see."""
    overlay(spec["root"], spec["lower"], spec["upper"], spec["root"])


def overlay(target: str, lower: list[str], upper: str = "", work: str = "") -> None:
    """Mounts directories over each other, top first; without an ``upper`` one they can only be read.

    The options must fit in one page, and know no other separators than ``:`` and ``,``: directories are named by
    our descriptors of them, in /proc/self/fd.
    """
    layers = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in lower]
    above = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (upper, work) if upper]
    os.chdir("/proc/self/fd")
    places = f"lowerdir={':'.join(map(str, layers))}"
    if above:
        places += f",upperdir={above[0]},workdir={above[1]}"
    try:
        mount("overlay", target, "overlay", 0, f"{'volatile,' if above else ''}{OVERLAY_OPTIONS},{places}")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount("overlay", target, "overlay", 0, f"{OVERLAY_OPTIONS},{places}")  # kernels before 5.10
    os.chdir("/")
    for fd in (*layers, *above):
        os.close(fd)


def furnish_by_mounts(spec: Spec, report: Report) -> None:
    """Private /dev, /proc, /sys and network files, of which nothing reaches the layer or the builder."""
    stubs = Stubs(spec["root"], spec["scratch"], report)
    dev = stubs.directory("dev")
    mount("tmpfs", dev, "tmpfs", NOSUID, "mode=0755,size=65536k")
    furnish_dev(dev)
    for path in ("etc/resolv.conf", "etc/hosts"):
        text = read_or_none(f"/{path}")
        if text is not None:  # a private copy, which the step may write to
            write(f"{dev}/copy", text)
            mount(f"{dev}/copy", stubs.file(path))
            os.unlink(f"{dev}/copy")
    proc = stubs.directory("proc")
    if spec["pid_namespace"]:
        mount("proc", proc, "proc", NOSUID | NODEV | NOEXEC)
    else:
        mount("/proc", proc)
    guard_proc(proc, f"{dev}/null")
    if os.path.isdir("/sys"):
        sys_directory = stubs.directory("sys")
        mount("/sys", sys_directory)
        make_read_only(sys_directory)


def furnish_dev(dev: str) -> None:
    """The devices that every program may expect."""
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            write(f"{dev}/{name}", b"")
            mount(f"/dev/{name}", f"{dev}/{name}")
    for name, target in DEVICE_LINKS.items():
        os.symlink(f"/proc/self/{target}", f"{dev}/{name}")
    os.mkdir(f"{dev}/shm")
    mount("tmpfs", f"{dev}/shm", "tmpfs", NOSUID | NODEV, "mode=1777,size=65536k")
    os.mkdir(f"{dev}/pts")
    try:
        mount("devpts", f"{dev}/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
        os.symlink("pts/ptmx", f"{dev}/ptmx")
    except OSError:
        os.rmdir(f"{dev}/pts")  # a build seldom needs a terminal: do without


def guard_proc(proc: str, null: str) -> None:
    """Takes from user 0 the parts of /proc that change or show the machine."""
    for name in PROC_READ_ONLY:
        path = f"{proc}/{name}"
        if os.path.exists(path):
            mount(path, path)
            make_read_only(path)
    for name in PROC_HIDDEN:
        if os.path.isfile(f"{proc}/{name}"):
            mount(null, f"{proc}/{name}")


def change_root(root: str) -> None:
    """Makes ``root`` the root, and lets the builder's files go; where pivot_root is refused, at least the former."""
    os.chdir(root)
    try:
        call("pivot_root", "pivot_root", b".", b".")
        call("let the old root go", "umount2", b".", DETACH)
    except (OSError, AttributeError):
        os.chroot(".")


def furnish_by_files(spec: Spec, report: Report) -> None:
    """What can be had without mounts: device nodes, or an empty file for /dev/null, and copies of network files."""
    stubs = Stubs(spec["root"], spec["scratch"], report)
    for name, (major, minor) in DEVICES.items():
        stubs.device(f"dev/{name}", os.makedev(major, minor))
    stubs.directory("dev/shm", 0o1777)
    for path in ("etc/resolv.conf", "etc/hosts"):
        text = read_or_none(f"/{path}")
        if text is not None:
            stubs.replace(path, text)


def read_or_none(path: str) -> bytes | None:
    """What a file of the builder holds; None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, content: bytes, mode: int = 0o644) -> None:
    """Makes a file that is not there yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)


def inside(root: str, path: str) -> str:
    """Where ``path`` leads below ``root``, relative to it, with every symlink taken as the step will see it."""
    todo = path.split("/")[::-1]
    here: list[str] = []
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            del here[-1:]
        elif name not in ("", "."):
            try:
                link = os.readlink("/".join((root, *here, name)))
            except OSError:
                here.append(name)
                continue
            if (links := links + 1) > 40:
                raise OSError(errno.ELOOP, f"too many symlinks in the image's /{path}")
            here = [] if link.startswith("/") else here
            todo += link.split("/")[::-1]
    return "/".join(here)


class Stubs:
    """What has to be in the root for the time of the step: made where it is missing, and each told to the builder."""

    def __init__(self, root: str, scratch: str, report: Report, prefix: str = "") -> None:
        self.root = root
        self.scratch = scratch
        self.report = report
        self.prefix = prefix
        self.moved = 0

    def directory(self, path: str, mode: int = 0o755) -> str:
        """The place of a directory, which exists on return."""
        relative = inside(self.root, path)
        target = f"{self.root}/{relative}"
        if relative and not os.path.lexists(target):
            self.directory(os.path.dirname(relative))
            self._make(relative, lambda: os.mkdir(target, mode))
        return target

    def file(self, path: str) -> str:
        """The place of a file, which exists on return."""
        relative = inside(self.root, path)
        target = f"{self.root}/{relative}"
        if not os.path.lexists(target):
            self.directory(os.path.dirname(relative))
            self._make(relative, lambda: write(target, b""))
        return target

    def moved_in(self, path: str, source: str, returns: bool) -> None:
        """What is at ``source`` on this machine, moved here for the time of the step; it returns, or goes."""
        self._put(path, lambda target: os.rename(source, target), source if returns else "")

    def written(self, path: str, content: bytes, mode: int, owner: tuple[int, int]) -> None:
        """A file with this content, in place of what was there."""

        def make(target: str) -> None:
            write(target, content, mode)
            give(target, *owner)
            os.chmod(target, mode)

        self._put(path, make, "")

    def _put(self, path: str, make: Callable[[str], None], returns_to: str) -> None:
        relative = inside(self.root, path)
        target = f"{self.root}/{relative}"
        self.directory(os.path.dirname(relative))
        aside = self._aside(target)

        def swap() -> None:
            if aside:
                os.rename(target, f"{self.scratch}/{aside}")
            make(target)

        self._make(relative, swap, aside, True, returns_to)

    def _aside(self, target: str) -> str:
        """A name in the scratch directory for what is in the way; empty when nothing is."""
        if not os.path.lexists(target):
            return ""
        self.moved += 1
        return f"moved-{self.prefix}{self.moved}"

    def device(self, path: str, number: int) -> None:
        """A character device, if we may make it and it works; an empty file in place of /dev/null if not."""
        relative = f"{inside(self.root, os.path.dirname(path))}/{os.path.basename(path)}"
        target = f"{self.root}/{relative}"
        if os.path.lexists(target):
            return
        self.directory(os.path.dirname(relative))
        self._make(relative, lambda: make_device(target, number))

    def replace(self, path: str, content: bytes) -> None:
        """A file with this content; what was there, be it a symlink, is moved aside."""
        relative = f"{inside(self.root, os.path.dirname(path))}/{os.path.basename(path)}"
        target = f"{self.root}/{relative}"
        self.directory(os.path.dirname(relative))
        aside = self._aside(target)
        self._make(relative, lambda: self._swap(target, content, aside), aside)

    def _swap(self, target: str, content: bytes, aside: str) -> None:
        if aside:
            os.rename(target, f"{self.scratch}/{aside}")
        write(target, content)

    def _make(
        self, relative: str, make: Callable[[], None], aside: str = "", whole: bool = False, returns_to: str = ""
    ) -> None:
        parent = os.path.dirname(f"{self.root}/{relative}")
        before = os.stat(parent).st_mtime_ns
        make()
        self.report("made", relative, aside, before, os.stat(parent).st_mtime_ns, whole, returns_to)


def make_device(target: str, number: int) -> None:
    """A node that can be opened, else (for null) a plain file, else nothing."""
    try:
        os.mknod(target, stat.S_IFCHR | 0o666, number)
        os.close(os.open(target, os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a terminal that we do not have
            return
        if os.path.lexists(target):
            os.unlink(target)
        if target.endswith("/null"):
            write(target, b"", 0o666)
