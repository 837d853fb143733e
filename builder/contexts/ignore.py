"""``.dockerignore``: which paths of the build context are left out, by the rules of moby's pattern matcher.

Patterns are relative to the context's root, with or without a leading slash. ``*`` and ``?`` stay within one name,
``**`` goes over any number of directories, ``[a-z]`` and the backslash are as in Go's ``filepath.Match``. A pattern
that matches a directory holds for all below it. The last pattern that holds decides; one that begins with ``!`` takes
the path in again.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.errors import ContextError, Span

_NO_RULE = -1


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line: ``pattern`` cleaned, ``exception`` where it had a ``!``."""

    pattern: str
    exception: bool

    @property
    def is_literal(self) -> bool:
        return not any(char in self.pattern for char in "*?[\\")


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules of a file. A walk that asks for parents before children costs a few comparisons for each path."""

    rules: tuple[_Rule, ...]
    _literals: Mapping[str, int] = field(repr=False)
    _patterns: tuple[tuple[int, re.Pattern[str]], ...] = field(repr=False)
    # Of a directory that was asked about, the number of the rule that decides: it holds for all below.
    _deciding: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, file: str = ".dockerignore") -> IgnoreRules:
        """The rules in the text of a ``.dockerignore``.

        Raises ContextError for a pattern that is malformed.
        """
        rules: list[_Rule] = []
        patterns: list[tuple[int, re.Pattern[str]]] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            rule = _parse_rule(line)
            if rule is None:
                continue
            try:
                if not rule.is_literal:
                    patterns.insert(0, (len(rules), _compile(rule.pattern)))
                if not rule.pattern:
                    raise ValueError("nothing behind the !")
            except ValueError as error:
                raise ContextError(f"invalid pattern: {error}", Span(file, number, line, 0, len(line))) from None
            rules.append(rule)
        literals = {rule.pattern: index for index, rule in enumerate(rules) if rule.is_literal}
        return cls(tuple(rules), literals, tuple(patterns))

    def excludes(self, path: str) -> bool:
        """True when ``path`` (relative, without leading or trailing slash) is left out. The root never is."""
        decision = self._decide(path)
        return decision != _NO_RULE and not self.rules[decision].exception

    def may_descend(self, path: str) -> bool:
        """False when the directory ``path`` and all that can be below it are left out."""
        decision = self._decide(path)
        if decision == _NO_RULE or self.rules[decision].exception:
            return True
        return any(rule.exception and _may_match_below(rule.pattern, path) for rule in self.rules[decision + 1 :])

    def _decide(self, path: str) -> int:
        """The number of the last rule that matches ``path`` or a directory above it."""
        if not path:
            return _NO_RULE
        unknown = []
        while path and path not in self._deciding:
            unknown.append(path)
            path = posixpath.dirname(path)
        decision = self._deciding[path] if path else _NO_RULE
        for name in reversed(unknown):
            decision = self._deciding[name] = self._decide_below(decision, name)
        return decision

    def _decide_below(self, decision: int, path: str) -> int:
        """The deciding rule of ``path`` when rule ``decision`` decides for the directory that it is in."""
        decision = max(decision, self._literals.get(path, _NO_RULE))
        for index, pattern in self._patterns:
            if index <= decision:
                break
            if pattern.match(path):
                return index
        return decision


def _parse_rule(line: str) -> _Rule | None:
    """The rule in a line; None for a comment or a blank line."""
    text = line.strip()
    if line.startswith("#") or not text:
        return None
    exception = text.startswith("!")
    text = text[1:].strip() if exception else text
    return _Rule(_clean(text) if text else "", exception)


def _clean(pattern: str) -> str:
    """``pattern`` without needless slashes and dots."""
    rooted = pattern.startswith("/")
    cleaned = posixpath.normpath("/" + pattern.lstrip("/") if rooted else pattern)
    return cleaned[1:] if rooted and len(cleaned) > 1 else cleaned


def _compile(pattern: str) -> re.Pattern[str]:
    """``pattern`` as a regular expression for whole paths. Raises ValueError."""
    regex = ""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if pattern.startswith("**", position):
            end = position + 3 if pattern.startswith("/", position + 2) else position + 2
            regex += _double_star(pattern, position, end)
            position = end
        elif char == "[":
            expression, position = _character_class(pattern, position)
            regex += expression
        elif char == "\\":
            if position + 1 == len(pattern):
                raise ValueError("a backslash at the end")
            regex += re.escape(pattern[position + 1])
            position += 2
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char)
            position += 1
    return re.compile(rf"(?:{regex})\Z", re.DOTALL)


def _double_star(pattern: str, start: int, end: int) -> str:
    """``**`` at the end is anything; elsewhere any number of whole directories.

    At the very start, directly before plain text (``**.log``), it is any beginning (moby compares the end of the path).
    """
    if end == len(pattern):
        return ".*"
    rest = pattern[end:]
    if start == 0 and pattern[end - 1] != "/" and not any(char in rest for char in "*?[]\\"):
        return ".*"
    return "(?:.*/)?"


def _character_class(pattern: str, start: int) -> tuple[str, int]:
    """The ``[…]`` that begins at ``start`` as a regular expression, and where it ends. Raises ValueError."""
    position = start + 1
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _class_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1)
        # Go takes a range that ends before it begins, and never finds anything in it.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if not inside:
        return ("." if negated else "(?!)"), position + 1
    return f"[{'^' if negated else ''}{inside}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    """One character in ``[…]``, and where the next begins."""
    char = pattern[position : position + 1]
    if char == "\\":
        position += 1
        char = pattern[position : position + 1]
    elif char in ("-", "]"):
        raise ValueError(f"a misplaced {char!r} in brackets")
    if not char:
        raise ValueError("brackets that are not closed")
    return char, position + 1


def _may_match_below(pattern: str, path: str) -> bool:
    """False only when ``pattern`` can match nothing below the directory ``path``."""
    if "**" in pattern or "[" in pattern:
        return True
    names, pattern_names = path.split("/"), pattern.split("/")
    if len(pattern_names) <= len(names):
        return False
    return all(_compile(wanted).match(name) for wanted, name in zip(pattern_names, names, strict=False))
