"""An ordinary user as root of a user namespace, in which the whole builder then works.

User 0 there is the user themself; the other ids are those that /etc/subuid and /etc/subgid grant, mapped by newuidmap
and newgidmap. Where there are none, user and group 0 are all there is: owners are kept as notes on the files
(builder.layer.entries), and a step can run as root only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuildError
from builder.sandbox.user_namespace import enter_user_namespace

_TIMEOUT_S = 20.0
_TOOLS = {"uid_map": "newuidmap", "gid_map": "newgidmap"}
_GRANTS = {"uid_map": Path("/etc/subuid"), "gid_map": Path("/etc/subgid")}


@dataclass(frozen=True, slots=True)
class IdRange:
    """So many ids of the machine, the first of them ``start``."""

    start: int
    count: int


def granted_ids(text: str, name: str, uid: int) -> tuple[IdRange, ...]:
    """What /etc/subuid or /etc/subgid with this text grants to a user (subuid(5)); passes over lines that are none."""
    found = []
    for line in text.splitlines():
        owner, _, ids = line.strip().partition(":")
        start, _, count = ids.partition(":")
        if owner in (name, str(uid)) and start.isdecimal() and count.isdecimal() and int(count):
            found.append(IdRange(int(start), int(count)))
    return tuple(found)


def id_map(own: int, granted: tuple[IdRange, ...]) -> list[tuple[int, int, int]]:
    """The lines of a map: 0 is ``own``, the granted ids follow from 1 on."""
    lines, inside = [(0, own, 1)], 1
    for ids in granted:
        lines.append((inside, ids.start, ids.count))
        inside += ids.count
    return lines


def become_root() -> list[str]:
    """Enters a user namespace when we are an ordinary user and may; this process must not have had threads yet.

    Returns what the user should know: why there is but one user, else nothing. Where no namespace is allowed nothing
    happens, for a build that finds every step in the cache needs none. Raises BuildError.
    """
    uid, gid = os.geteuid(), os.getegid()
    maps, missing = _maps(uid, gid)
    try:
        enter_user_namespace(0, lambda pid: _map_ids(pid, uid, gid, maps))
    except OSError as error:
        if os.geteuid() == uid:
            return []
        raise BuildError(f"cannot become root of a user namespace: {error.strerror}") from error
    if not missing and len(Path("/proc/self/gid_map").read_text().splitlines()) == 1:
        missing = "newuidmap or newgidmap refused"
    return [f"steps can run as user 0 only, and not change owners: {missing}"] if missing else []


def _maps(uid: int, gid: int) -> tuple[dict[str, list[tuple[int, int, int]]], str]:
    """The maps that can be had, by their names in /proc; and why there are none."""
    name = str(uid)
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
    maps = {}
    for kind, own in (("uid_map", uid), ("gid_map", gid)):
        grants = _GRANTS[kind]
        granted = granted_ids(grants.read_text(), name, uid) if grants.exists() else ()
        if not granted:
            return {}, f"{grants} grants user {name} no ids"
        if shutil.which(_TOOLS[kind]) is None:
            return {}, f"there is no {_TOOLS[kind]} here"
        maps[kind] = id_map(own, granted)
    return maps, ""


def _map_ids(pid: int, uid: int, gid: int, maps: dict[str, list[tuple[int, int, int]]]) -> int:
    """Runs in the helper outside the namespace; what newuidmap says in failing goes to our standard error."""
    if maps and all(_run(_TOOLS[kind], pid, lines) for kind, lines in maps.items()):
        return 0
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    for kind, own in (("uid_map", uid), ("gid_map", gid)):
        place = Path(f"/proc/{pid}/{kind}")
        if not place.read_text():
            place.write_text(f"0 {own} 1\n")
    return 0


def _run(tool: str, pid: int, lines: list[tuple[int, int, int]]) -> bool:
    numbers = [str(number) for line in lines for number in line]
    return subprocess.run([tool, str(pid), *numbers], timeout=_TIMEOUT_S, check=False).returncode == 0
