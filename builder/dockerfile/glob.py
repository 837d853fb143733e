"""The patterns of ``${name#pattern}`` and its kin: ``*`` any text, ``?`` one character, no brackets.

Matching takes time in proportion to value and pattern, whatever the pattern: no regular expression that could blow up.
"""

from __future__ import annotations

import msgspec


class InvalidPattern(ValueError):
    """A pattern with an escape before a character that needs none."""


class _Star(msgspec.Struct, frozen=True):
    """Any text without line ends."""


class _One(msgspec.Struct, frozen=True):
    """``char``, or any one but a line end when it is empty."""

    char: str

    def matches(self, char: str) -> bool:
        return char == self.char if self.char else char != "\n"


_Tokens = tuple[_Star | _One, ...]


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """``value`` without the shortest or longest start that matches ``pattern``.

    Raises InvalidPattern.
    """
    end = _match_end(value, 0, _tokens(pattern), longest=longest)
    return value if end is None else value[end:]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """``value`` without the shortest or longest end that matches ``pattern``.

    Raises InvalidPattern.
    """
    backward = value[::-1]
    end = _match_end(backward, 0, _tokens(pattern)[::-1], longest=longest)
    return value if end is None else backward[end:][::-1]


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """``value`` with the first longest match of ``pattern``, or every one, replaced.

    Raises InvalidPattern.
    """
    tokens = _tokens(pattern)
    result = ""
    position = last_end = 0
    while position <= len(value):
        end = _match_end(value, position, tokens, longest=True)
        # Directly behind a match an empty one does not count.
        if end is not None and (end > position or position > last_end or not position):
            result += replacement
            last_end = end
            if not everywhere:
                return result + value[end:]
        if end is None or end == position:
            result += value[position : position + 1]
            end = position + 1
        position = end
    return result


def _tokens(pattern: str) -> _Tokens:
    tokens: list[_Star | _One] = []
    characters = iter(enumerate(pattern))
    for index, char in characters:
        if char == "*":
            tokens.append(_Star())
        elif char == "?":
            tokens.append(_One(""))
        elif char != "\\":
            tokens.append(_One(char))
        elif pattern[index + 1 : index + 2] not in ("}", "/"):
            _, escaped = next(characters, (0, ""))
            if escaped not in ("*", "?", "\\"):
                raise InvalidPattern(f"invalid escape '\\{escaped}' in the pattern {pattern!r}")
            tokens.append(_One(escaped))
    return tuple(tokens)


def _match_end(value: str, start: int, tokens: _Tokens, *, longest: bool) -> int | None:
    """Where the shortest or longest match of ``tokens`` at ``start`` ends; None without one."""
    states = _skip_stars({0}, tokens)
    end = start if len(tokens) in states else None
    for position in range(start, len(value)):
        if not states or (end is not None and not longest):
            break
        states = _skip_stars(_step(states, value[position], tokens), tokens)
        if len(tokens) in states:
            end = position + 1
    return end


def _step(states: set[int], char: str, tokens: _Tokens) -> set[int]:
    """The tokens that may come next after ``char``."""
    following: set[int] = set()
    for state in states:
        if state == len(tokens):
            continue
        token = tokens[state]
        if isinstance(token, _One):
            if token.matches(char):
                following.add(state + 1)
        elif char != "\n":
            following.add(state)
    return following


def _skip_stars(states: set[int], tokens: _Tokens) -> set[int]:
    """``states`` and those that are reached from them when stars match nothing."""
    reached = set(states)
    for state in states:
        while state < len(tokens) and isinstance(tokens[state], _Star):
            state += 1
            reached.add(state)
    return reached
