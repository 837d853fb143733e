"""The rules of COPY and ADD that need no files: what a source pattern means, and what a destination says of itself.

Patterns are Go's ``filepath.Match``, one path component at a time: ``*``, ``?``, ``[a-z]``, ``[^a]``, ``\\`` to escape.
"""

from __future__ import annotations

import re

from builder.errors import ContextError
from builder.layer.links import clean

_ENDS_AS_DIRECTORY = {"", ".", ".."}


def has_wildcard(part: str) -> bool:
    """True when a component is a pattern and not just a name."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", part, flags=re.DOTALL)) is not None


def split_pattern(pattern: str) -> tuple[str, tuple[re.Pattern[str], ...]]:
    """A source as a path without wildcards (cleaned, so that it cannot leave the root) and patterns for what follows.

    Raises ContextError for a pattern that is not well-formed.
    """
    parts = clean(pattern).split("/")
    first = next((at for at, part in enumerate(parts) if has_wildcard(part)), len(parts))
    return "/".join(parts[:first]), tuple(_compiled(part, pattern) for part in parts[first:])


def names_directory(destination: str) -> bool:
    """True for a destination that can only be a directory: it ends in a slash, ``.`` or ``..``."""
    return destination.rpartition("/")[2] in _ENDS_AS_DIRECTORY


def destination_path(destination: str, workdir: str) -> str:
    """The destination relative to the root; one without a leading slash starts at ``workdir``."""
    return clean(destination if destination.startswith("/") else f"{workdir}/{destination}")


def _compiled(part: str, pattern: str) -> re.Pattern[str]:
    expression, at = "", 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            expression += ".*"
        elif char == "?":
            expression += "."
        elif char == "[":
            ranges, at = _class(part, at, pattern)
            expression += ranges
        else:
            literal, at = _literal(part, at - 1, pattern)
            expression += re.escape(literal)
    return re.compile(expression, re.DOTALL)


def _class(part: str, at: int, pattern: str) -> tuple[str, int]:
    """The class that begins after ``[`` as a regular expression, and where it ends."""
    inverted = part.startswith("^", at)
    at += inverted
    found, ranges = "", 0
    while not ranges or not part.startswith("]", at):
        if part[at : at + 1] in {"", "-", "]"}:
            raise ContextError(f"{pattern!r} is not a pattern: a character class in it is not well-formed")
        low, at = _literal(part, at, pattern)
        high = low
        if part.startswith("-", at):
            if part[at + 1 : at + 2] in {"", "-", "]"}:
                raise ContextError(f"{pattern!r} is not a pattern: a range in it has no end")
            high, at = _literal(part, at + 1, pattern)
        # Go takes a range that ends before it begins, and never finds anything in it.
        found += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
        ranges += 1
    if not found:
        return ("." if inverted else "(?!)"), at + 1
    return f"[{'^' if inverted else ''}{found}]", at + 1


def _literal(part: str, at: int, pattern: str) -> tuple[str, int]:
    """One character, the next one when it is escaped, and where it ends."""
    if part[at] == "\\":
        at += 1
        if at == len(part):
            raise ContextError(f"{pattern!r} is not a pattern: it ends in a backslash")
    return part[at], at + 1
