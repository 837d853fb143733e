"""Who ``USER`` and ``--chown`` mean, by the text of an image's ``/etc/passwd`` and ``/etc/group``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_HIGHEST_ID = 2**32 - 2  # (uid_t)-1 means "no change" to the kernel


@dataclass(frozen=True, slots=True)
class User:
    """What a process of this user runs with; ``groups`` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(text: str, passwd: str, group: str) -> User:
    """The user of ``USER text``: ``user``, ``user:group``, each a name or a number; root for an empty text.

    Names are looked up first, then numbers; a number that is in no file stands for itself, with group 0 and home ``/``.
    ``root`` needs no file.
    An account's groups count only where no group is named, as in Docker.
    Raises ValueError.
    """
    user, colon, group_name = text.partition(":")
    account = _find_account(user or "0", passwd)
    if account is None:
        account = _Account("", 0 if user == "root" else _number(user or "0", "user", "/etc/passwd"), 0, "/")
    if colon and group_name:
        return User(account.uid, _group_id(group_name, group), (), account.home)
    groups = tuple(entry.gid for entry in _groups(group) if account.name and account.name in entry.members)
    return User(account.uid, account.gid, tuple(dict.fromkeys(groups)), account.home)


def resolve_owner(text: str, passwd: str, group: str) -> tuple[int, int]:
    """The uid and gid of ``--chown=text``: as with USER, but a lone number is the gid too, as in BuildKit.

    Raises ValueError.
    """
    user, _, group_name = text.partition(":")
    if _is_number(user):
        uid = gid = _number(user, "user", "/etc/passwd")
    else:
        account = _find_account(user or "0", passwd)
        if account is None and user not in ("", "root"):
            raise ValueError(f"no user {user!r} in the image's /etc/passwd")
        uid, gid = (account.uid, account.gid) if account else (0, 0)
    return uid, _group_id(group_name, group) if group_name else gid


def _find_account(user: str, passwd: str) -> _Account | None:
    accounts = list(_accounts(passwd))
    by_name = (account for account in accounts if account.name == user)
    by_number = (account for account in accounts if _is_number(user) and account.uid == int(user))
    return next(by_name, None) or next(by_number, None)


def _group_id(name: str, group: str) -> int:
    for entry in _groups(group):
        if entry.name == name:
            return entry.gid
    return 0 if name == "root" else _number(name, "group", "/etc/group")


def _number(text: str, what: str, file: str) -> int:
    if not _is_number(text):
        raise ValueError(f"no {what} {text!r} in the image's {file}")
    if int(text) > _HIGHEST_ID:
        raise ValueError(f"{what} {text} is out of range: at most {_HIGHEST_ID}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _accounts(passwd: str) -> Iterator[_Account]:
    """name:password:uid:gid:gecos:home:shell; lines that are not so are passed over, as libc does."""
    for line in passwd.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 4 and fields[0] and _is_number(fields[2]) and _is_number(fields[3]):
            home = fields[5] if len(fields) > 5 else ""
            yield _Account(fields[0], int(fields[2]), int(fields[3]), home or "/")


def _groups(group: str) -> Iterator[_Group]:
    """name:password:gid:members separated by commas."""
    for line in group.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 3 and fields[0] and _is_number(fields[2]):
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], int(fields[2]), tuple(member.strip() for member in members))
