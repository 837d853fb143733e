"""What ``RUN --mount`` asks for, put into a step's root by the sandbox program.

Each mount is a dict with a ``target`` (absolute, in the root) and a ``kind``:

    file        ``content``, ``mode``, ``uid``, ``gid``: on a tmpfs where there are mounts
    bind        ``path`` of this machine, ``writable``
    overlay     ``lower`` directories, top first, with what is at ``source`` in them; ``point`` is an empty directory to
                mount them on, ``upper`` and ``work`` are others where it is writable
    tmpfs       ``size`` in bytes, 0 for no limit
    move        ``path`` of this machine, which ``returns`` after the step or not: for want of mounts

A part of builder/sandbox/program.py: only the standard library, and nothing here may run in the builder's own process.
"""

from __future__ import annotations

import os

from builder.sandbox.ids import give
from builder.sandbox.root import NODEV, NOSUID, Stubs, inside, make_read_only, mount, overlay, write

TYPE_CHECKING = False  # as in builder/sandbox/program.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Spec = dict[str, Any]
    Report = Callable[..., int]

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def make_mounts(spec: Spec, report: Report) -> None:
    """Mounts them, those nearer to the root first; targets that are missing are there for the time of the step."""
    stubs = Stubs(spec["root"], spec["scratch"], report, "mount-")
    for wanted in spec["mounts"]:
        make_mount(stubs, wanted)


def make_mount(stubs: Stubs, wanted: Spec) -> None:
    """One mount."""
    kind, target = wanted["kind"], wanted["target"]
    if kind == "file":
        copy = f"{stubs.root}/dev/.copy"
        write(copy, wanted["content"], wanted["mode"])
        give(copy, wanted["uid"], wanted["gid"])
        os.chmod(copy, wanted["mode"])
        mount(copy, point(stubs, target, is_directory=False))
        os.unlink(copy)
    elif kind == "tmpfs":
        size = f",size={wanted['size']}" if wanted["size"] else ""
        mount("tmpfs", point(stubs, target, is_directory=True), "tmpfs", NOSUID | NODEV, f"mode=1777{size}")
    elif kind == "bind":
        bind(stubs, wanted["path"], target, wanted["writable"])
    else:
        overlay(wanted["point"], wanted["lower"], wanted["upper"], wanted["work"])
        bind(stubs, f"{wanted['point']}/{wanted['source']}", target, wanted["writable"])


def bind(stubs: Stubs, path: str, target: str, writable: bool) -> None:
    """Shows a path of this machine in the root."""
    place = point(stubs, target, is_directory=os.path.isdir(path))
    mount(path, place)
    if not writable:
        make_read_only(place)


def point(stubs: Stubs, target: str, *, is_directory: bool) -> str:
    """The place of a mount, which exists on return and is of the right kind."""
    check_kind(stubs.root, target, is_directory=is_directory)
    return stubs.directory(target) if is_directory else stubs.file(target)


def check_kind(root: str, target: str, *, is_directory: bool) -> None:
    """Raises OSError for a file where a directory is to be, and the other way round."""
    present = f"{root}/{inside(root, target)}"
    if os.path.lexists(present) and os.path.isdir(present) is not is_directory:
        what = ("a directory", "a file") if is_directory else ("a file", "a directory")
        raise OSError(0, f"cannot mount {what[0]} on {target}, which is {what[1]}")


def place_mounts(spec: Spec, report: Report) -> None:
    """Puts the same things there without mounts; the builder takes them away after the step."""
    stubs = Stubs(spec["root"], spec["scratch"], report, "mount-")
    for wanted in spec["mounts"]:
        is_directory = wanted["kind"] != "file" and os.path.isdir(wanted["path"])
        check_kind(spec["root"], wanted["target"], is_directory=is_directory)
        if wanted["kind"] == "file":
            stubs.written(wanted["target"], wanted["content"], wanted["mode"], (wanted["uid"], wanted["gid"]))
            continue
        stubs.moved_in(wanted["target"], wanted["path"], wanted["returns"])


def raise_loopback() -> None:
    """Lets a step without network at least talk to itself."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | IFF_UP, b""))
