"""Entering a user namespace: how its ids become those of the machine.

A part of builder/sandbox/program.py too: only the standard library.
"""

from __future__ import annotations

import os

from builder.sandbox.root import call

TYPE_CHECKING = False  # as in builder/sandbox/program.py
if TYPE_CHECKING:
    from collections.abc import Callable

NEWUSER = 0x10000000


def enter_user_namespace(flags: int, map_ids: Callable[[int], int]) -> None:
    """Unshares (``flags`` with what else is to be new) and has a helper that stays outside map the ids.

    ``map_ids`` gets our process id, runs in the helper and returns an exit status: 0, or an error number. Raises
    OSError. Nothing has changed for us when it was the unsharing that failed.
    """
    pid = os.getpid()
    reading, writing = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(writing)
        os._exit(_mapped(map_ids, pid) if os.read(reading, 1) else 0)
    os.close(reading)
    try:
        call("unshare with a user namespace", "unshare", NEWUSER | flags)
        os.write(writing, b"x")
    finally:
        os.close(writing)
        _, status = os.waitpid(helper, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, f"map user and group ids: {os.strerror(abs(code))}")


def _mapped(map_ids: Callable[[int], int], pid: int) -> int:
    try:
        return map_ids(pid)
    except OSError as error:
        return error.errno or 1


def map_all_ids(pid: int) -> int:
    """Maps every id that we have onto itself."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as own, open(f"/proc/{pid}/{name}", "w") as theirs:
            inside = [line.split() for line in own]
            theirs.write("".join(f"{first} {first} {count}\n" for first, _, count in inside))
    return 0
