"""Who may do what where: rules as values, and the decision over them.

A rule names people, a prefix of repositories and rights. Repositories hosted here go by their own name (``cache/app``),
an upstream's by that upstream's name before theirs (``docker.io/library/alpine``). What no rule grants is refused; a
proxy without any rule grants everything, and leaves it to the upstreams to judge their clients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

ANYBODY = "*"
"""Everybody, with and without credentials."""
NOBODY_KNOWN = "anonymous"
"""Who brings no credentials."""
GUEST = "guest"
"""Who brings credentials that are no local user's: they are meant for an upstream, which judges them."""
USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


class Right(Enum):
    """What a rule can grant."""

    READ = "read"
    """To be served what is held, and to hear what an upstream says of a tag."""
    WRITE = "write"
    DELETE = "delete"
    FETCH = "fetch"
    """To have an upstream's content fetched that is not held yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``who`` (users' names, ANYBODY, NOBODY_KNOWN, GUEST) may do ``rights`` under ``prefix`` ("" = everywhere)."""

    who: frozenset[str]
    prefix: str
    rights: frozenset[Right]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """A rule written as ``WHO[,WHO...] PREFIX RIGHT[,RIGHT...]``.

        The prefix ``*`` is everywhere, the right ``all`` is all of them. Raises ValueError.
        """
        parts = text.split()
        if len(parts) != 3:
            raise ValueError(f"{text!r}: expected WHO PREFIX RIGHTS, for example 'ci cache/ read,write'")
        who, prefix, rights = parts[0].split(","), parts[1].strip("/"), parts[2].split(",")
        if wrong := [name for name in who if name != ANYBODY and not USER_NAME.fullmatch(name)]:
            raise ValueError(f"{text!r}: {wrong[0]!r} is not a user's name, '*', 'anonymous' or 'guest'")
        known = {right.value: frozenset({right}) for right in Right} | {"all": frozenset(Right)}
        if wrong := [right for right in rights if right not in known]:
            raise ValueError(f"{text!r}: {wrong[0]!r} is not a right: expected {', '.join(known)}")
        granted = frozenset().union(*(known[right] for right in rights))
        return cls(frozenset(who), "" if prefix == ANYBODY else prefix, granted)

    def covers(self, place: str) -> bool:
        """True when the repository lies under the prefix, component by component."""
        return not self.prefix or f"{place}/".startswith(f"{self.prefix}/")


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules; rights add up."""

    rules: tuple[Rule, ...] = ()

    def admit(self, who: str) -> bool:
        """Whether there is any repository where ``who`` has any right."""
        names = {who, ANYBODY}
        return not self.rules or any(rule.who & names for rule in self.rules)

    def allow(self, who: str, place: str, right: Right) -> bool:
        """Whether ``who`` has the right at the repository ``place``."""
        if not self.rules:
            return True
        names = {who, ANYBODY}
        return any(rule.who & names and right in rule.rights and rule.covers(place) for rule in self.rules)
