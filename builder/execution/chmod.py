"""``--chmod``: an octal mode, or clauses such as ``u=rwX,go-w`` (chmod(1)), as a value to apply to modes (pure)."""

from __future__ import annotations

import re
import stat

import msgspec

_OCTAL = re.compile(r"[0-7]{1,5}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo]|)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SET_ID = {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}


class _Action(msgspec.Struct, frozen=True):
    """One of ``+-=`` for the classes ``who``; ``what`` are permissions, or the class to take them from."""

    who: str
    operator: str
    what: str


class ModeChange(msgspec.Struct, frozen=True):
    """What ``--chmod`` makes of a mode; ``text`` as written."""

    text: str
    octal: int | None
    actions: tuple[_Action, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ModeChange:
        """Raises ValueError for what is neither an octal mode up to 7777 nor a list of clauses."""
        if _OCTAL.fullmatch(text) and int(text, 8) <= 0o7777:
            return cls(text, int(text, 8))
        actions: list[_Action] = []
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise ValueError(f"{text!r} is not a mode: expected an octal one such as 0644, or such as u=rwX,go-w")
            who = "ugo" if "a" in match[1] or not match[1] else match[1]
            actions += [_Action(who, operator, what) for operator, what in _ACTION.findall(match[2])]
        return cls(text, None, tuple(actions))

    def apply(self, mode: int) -> int:
        """``mode`` (a whole st_mode) with other permissions; its type stays."""
        if self.octal is not None:
            return stat.S_IFMT(mode) | self.octal
        for action in self.actions:
            mode = _applied(action, mode)
        return mode


def _applied(action: _Action, mode: int) -> int:
    was = mode
    for who in dict.fromkeys(action.who):
        bits = _permissions(action.what, was) << _SHIFTS[who]
        special = _SET_ID[who] if "s" in action.what else 0
        if action.operator == "=":
            mode &= ~(0o7 << _SHIFTS[who] | _SET_ID[who])
        mode = mode & ~(bits | special) if action.operator == "-" else mode | bits | special
    if "t" in action.what:
        mode = mode & ~stat.S_ISVTX if action.operator == "-" else mode | stat.S_ISVTX
    return mode


def _permissions(what: str, mode: int) -> int:
    """The three bits that letters stand for, or those of another class."""
    if what in _SHIFTS:
        return mode >> _SHIFTS[what] & 0o7
    bits = sum(_BITS[letter] for letter in set(what) if letter in _BITS)
    may_run = stat.S_ISDIR(mode) or bool(mode & 0o111)
    return bits | (0o1 if "X" in what and may_run else 0)
