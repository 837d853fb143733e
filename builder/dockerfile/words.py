"""How the text behind a keyword is cut into words. Quotes and escapes stay in the words until they are expanded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""White space as Go's ``unicode.IsSpace`` has it; Python's ``str.strip`` takes some control characters beside."""

_BLANK = frozenset(SPACE)
_UNBLANK = re.compile(r"[^\t\v\f\r ]+")


class NotStrings(ValueError):
    """A JSON array with something else in it than strings."""


class Token(msgspec.Struct, frozen=True):
    """A word and its place in a logical line."""

    text: str
    start: int
    stop: int


def blank_separated(text: str, start: int = 0) -> list[Token]:
    """The words of ``text`` from ``start``, separated by blanks; quotes mean nothing."""
    return [Token(match[0], match.start(), match.end()) for match in _UNBLANK.finditer(text, start)]


def quoted_words(text: str, start: int, escape: str) -> list[Token]:
    """The words of ``text`` from ``start``, where blanks in quotes or after an escape belong to the word."""
    words: list[Token] = []
    position = start
    while position < len(text):
        if text[position] in _BLANK:
            position += 1
            continue
        stop = _word_end(text, position, escape)
        word = text[position:stop]
        if stop == len(text) and _ends_in_bare_escape(word, escape):
            word = word[:-1]
        if word:
            words.append(Token(word, position, stop))
        position = stop
    return words


def _word_end(text: str, position: int, escape: str, raw_quote: str = "'") -> int:
    """Where the word ends that begins at ``position``; between two ``raw_quote`` the escape is a mere character."""
    quote = ""
    while position < len(text):
        char = text[position]
        if not quote and char in _BLANK:
            return position
        if char == escape and not (quote and quote == raw_quote):
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        position += 1
    return len(text)


def _ends_in_bare_escape(word: str, escape: str) -> bool:
    """True when the last character escapes nothing."""
    bare = len(word) - len(word.rstrip(escape))
    return bare % 2 == 1


def json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, or None when ``text`` is no JSON array.

    Raises NotStrings.
    """
    text = text.strip(SPACE)
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise NotStrings("a JSON array here must consist of strings only")
    return tuple(_no_surrogates(value) for value in values)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_surrogates(value: str) -> str:
    """``value`` with lone surrogates replaced, which is what Go makes of them."""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class FlagText(msgspec.Struct, frozen=True):
    """``--name=value`` before an instruction's arguments, quotes and escapes out; None without ``=``."""

    name: str
    value: str | None
    token: Token


def read_flags(text: str, start: int) -> tuple[list[FlagText], int]:
    """The flags of ``text`` from ``start``, and where the arguments begin. A bare ``--`` ends the flags."""
    flags: list[FlagText] = []
    position = _skip_blanks(text, start)
    while text.startswith("--", position):
        # BuildKit knows only the backslash here, whatever the escape directive says, and knows it in all quotes.
        stop = _word_end(text, position, "\\", raw_quote="")
        word = "".join(unquoted(text[position:stop]))
        if word == "--":
            return flags, _skip_blanks(text, stop)
        name, equals, value = word[2:].partition("=")
        flags.append(FlagText(name, value if equals else None, Token(word, position, stop)))
        position = _skip_blanks(text, stop)
    return flags, position


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def unquoted(word: str) -> Iterator[str]:
    """The characters of a word, quotes and escapes out."""
    quote = ""
    escaped = False
    for char in word:
        if escaped:
            yield char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            yield char
