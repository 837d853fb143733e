"""What the user namespace that we are in allows with user and group ids.

A part of builder/sandbox/program.py too: only the standard library.
"""

from __future__ import annotations

import errno
import os

NOT_MAPPED = "not mapped in this user namespace"


def may_set_groups() -> bool:
    """False in a namespace whose one group was mapped without privileges (user_namespaces(7))."""
    with open("/proc/self/setgroups") as file:
        return file.read().strip() != "deny"


def give(file: int | str | os.PathLike[str], uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
    """chown(2). Raises OSError, which says so when it is for want of such an id."""
    try:
        os.chown(file, uid, gid, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(error.errno, f"user {uid}, group {gid}: {NOT_MAPPED}", error.filename) from error
