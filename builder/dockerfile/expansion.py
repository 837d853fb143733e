"""Variables, quotes and escapes in a Dockerfile's words, by the rules of BuildKit's shell lexer.

``$name``, ``${name}`` and the modifiers ``- + ?`` (with ``:`` also for empty values), ``# ## % %%`` and ``/ //``.
Single quotes protect all, double quotes all but ``$`` and escapes. A variable that is not set is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder.dockerfile.glob import InvalidPattern, replace, trim_prefix, trim_suffix
from builder.dockerfile.instructions import Word
from builder.dockerfile.words import SPACE
from builder.errors import DockerfileError, Span

_SPECIAL_NAMES = frozenset("@*#?-$!0")
_BLANK = frozenset(SPACE)
_DEEPEST = 40


def expand(word: Word, env: Mapping[str, str], escape: str = "\\") -> str:
    """The text of ``word`` with variables of ``env`` in place, quotes and escapes out.

    Raises DockerfileError.
    """
    return "".join(piece.text for piece in _Expander(word, env, escape).pieces())


def expand_document(text: Word, env: Mapping[str, str]) -> str:
    """A here-document with variables of ``env`` in place; quotes are text, and a backslash takes meaning from what is
    behind it, as in BuildKit.

    Raises DockerfileError.
    """
    return "".join(piece.text for piece in _Expander(text, env, "\\", quotes=False).pieces())


def expand_words(word: Word, env: Mapping[str, str], escape: str = "\\") -> tuple[str, ...]:
    """The words that ``word`` becomes: blanks outside quotes, also those that a variable brings, separate them.

    Raises DockerfileError.
    """
    words: list[str] = []
    current = ""
    for piece in _Expander(word, env, escape).pieces():
        if not piece.splits:
            current += piece.text
            continue
        for char in piece.text:
            if char not in _BLANK:
                current += char
            elif current:
                words.append(current)
                current = ""
    return (*words, current) if current else tuple(words)


def variable_names(word: Word, escape: str = "\\", *, quotes: bool = True) -> tuple[str, ...]:
    """The variables that ``word`` asks for, in order; also those in defaults that are not needed. Without ``quotes``
    it is a here-document, as in `expand_document`.

    Raises DockerfileError.
    """
    asked = _Asked()
    _Expander(word, asked, escape, quotes).pieces()
    return tuple(asked.names)


class _Asked(Mapping[str, str]):
    """Has every variable, and knows which it was asked for."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        self.names[name] = None
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the result; where ``splits``, blanks in it separate words."""

    text: str
    splits: bool


class _Invalid(Exception):
    """A fault from ``start`` on in the text that is read."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.start = start


@dataclass(slots=True)
class _Expander:
    """One pass over one word."""

    word: Word
    env: Mapping[str, str]
    escape: str
    quotes: bool = True
    position: int = 0
    depth: int = 0
    keep_escapes: bool = False

    def pieces(self) -> list[_Piece]:
        try:
            return self._until("")
        except _Invalid as fault:
            raise DockerfileError(f"cannot expand {self.word.text!r}: {fault}", self._span(fault.start)) from None

    def _span(self, start: int) -> Span:
        """The place of the fault, where the word stands in one piece in its line; else that of the word."""
        span = self.word.span
        if span.text[span.start : span.stop] != self.word.text:
            return span
        return Span(span.file, span.line, span.text, span.start + start, span.stop)

    def _peek(self) -> str:
        """The next character, empty at the end."""
        return self.word.text[self.position : self.position + 1]

    def _next(self) -> str:
        char = self._peek()
        self.position += 1
        return char

    def _until(self, stop: str, keep_escapes: bool = False) -> list[_Piece]:
        """What comes before the character ``stop``, which is taken; up to the end where ``stop`` is empty."""
        start = self.position
        outer, self.keep_escapes = self.keep_escapes, keep_escapes
        pieces: list[_Piece] = []
        while (char := self._peek()) and char != stop:
            pieces.extend(self._piece(char))
        if stop and not self._next():
            raise _Invalid(f"missing {stop!r}", start)
        self.keep_escapes = outer
        return pieces

    def _text_until(self, stop: str, keep_escapes: bool = False) -> str:
        return "".join(piece.text for piece in self._until(stop, keep_escapes))

    def _piece(self, char: str) -> list[_Piece]:
        if char == "$":
            return [_Piece(self._variable(), splits=True)]
        if char == "'" and self.quotes:
            return [_Piece(self._single_quoted(), splits=False)]
        if char == '"' and self.quotes:
            return [_Piece(self._double_quoted(), splits=False)]
        self.position += 1
        if char != self.escape:
            return [_Piece(char, splits=True)]
        kept = char if self.keep_escapes else ""
        return [_Piece(kept + self._next(), splits=False)]

    def _single_quoted(self) -> str:
        stop = self.word.text.find("'", self.position + 1)
        if stop < 0:
            raise _Invalid("missing the closing single quote", self.position)
        text = self.word.text[self.position + 1 : stop]
        self.position = stop + 1
        return text

    def _double_quoted(self) -> str:
        start = self.position
        self.position += 1
        text = ""
        while (char := self._peek()) != '"':
            if not char:
                raise _Invalid("missing the closing double quote", start)
            text += self._variable() if char == "$" else self._double_quoted_character()
        self.position += 1
        return text

    def _double_quoted_character(self) -> str:
        char = self._next()
        if char != self.escape:
            return char
        kept = char if self.keep_escapes else ""
        following = self._peek()
        if not following:
            return kept
        # Before any other character the escape is a character like any other.
        return kept + (self._next() if following in ('"', "$", self.escape) else char)

    def _variable(self) -> str:
        start = self.position
        self.position += 1
        if self._peek() != "{":
            name = self._name()
            return self.env.get(name, "") if name else "$"
        self.position += 1
        if self.depth == _DEEPEST:
            raise _Invalid("variables are nested too deeply", start)
        self.depth += 1
        try:
            return self._braced(start)
        finally:
            self.depth -= 1

    def _name(self) -> str:
        """The name of a variable at this place: a word, digits, or one special character; empty when there is none."""
        start = self.position
        first = self._peek()
        if first and first.isdecimal():
            while self._peek().isdecimal():
                self.position += 1
        elif first in _SPECIAL_NAMES:
            self.position += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self.position += 1
        return self.word.text[start : self.position]

    def _braced(self, start: int) -> str:
        """The value of ``${…}``, whose brace has been read."""
        if self._peek() in ("{", "}", ":"):
            raise _Invalid("bad substitution", start)
        name = self._name()
        modifier = self._next()
        if modifier == ":":
            modifier += self._next()
        match modifier:
            case "}":
                return self.env.get(name, "")
            case "-" | "+" | "?" | ":-" | ":+" | ":?":
                return self._conditional(name, modifier, start)
            case "#" | "%":
                return self._trimmed(name, modifier, start)
            case "/":
                return self._replaced(name, start)
            case "" | ":":
                raise _Invalid("missing '}'", start)
        raise _Invalid(f"unsupported modifier {modifier!r}", start)

    def _conditional(self, name: str, modifier: str, start: int) -> str:
        word = self._text_until("}")
        value = self.env.get(name)
        missing = value is None or (modifier[0] == ":" and not value)
        match modifier[-1]:
            case "-":
                return word if missing else value or ""
            case "+":
                return "" if missing else word
        if missing:
            raise _Invalid(f"{name}: {word or 'must be set' + (' and not empty' if modifier[0] == ':' else '')}", start)
        return value or ""

    def _trimmed(self, name: str, modifier: str, start: int) -> str:
        pattern = self._text_until("}", keep_escapes=True)
        longest = pattern.startswith(modifier)
        trim = trim_prefix if modifier == "#" else trim_suffix
        try:
            return trim(self.env.get(name, ""), pattern[1:] if longest else pattern, longest=longest)
        except InvalidPattern as fault:
            raise _Invalid(str(fault), start) from None

    def _replaced(self, name: str, start: int) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self.position += 1
        pattern = self._text_until("/", keep_escapes=True)
        replacement = self._text_until("}", keep_escapes=True)
        try:
            return replace(self.env.get(name, ""), pattern, replacement, everywhere=everywhere)
        except InvalidPattern as fault:
            raise _Invalid(str(fault), start) from None
