"""One instruction on its way from text to a typed value: its keyword, its flags and what is left, with places."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from builder.dockerfile.closest import closest
from builder.dockerfile.instructions import Command, ExecForm, ShellForm, Word
from builder.dockerfile.lines import LogicalLine
from builder.dockerfile.words import (
    SPACE,
    FlagText,
    NotStrings,
    Token,
    blank_separated,
    json_strings,
    quoted_words,
    read_flags,
)
from builder.errors import DockerfileError, Span


class Statement(msgspec.Struct, frozen=True):
    """A logical line, the keyword in upper case, and its arguments from ``start`` to the line's end."""

    line: LogicalLine
    escape: str
    keyword: Token
    flags: tuple[FlagText, ...]
    start: int

    @property
    def source(self) -> str:
        return self.line.text.strip(SPACE)

    @property
    def span(self) -> Span:
        """The first physical line of the instruction."""
        return self.line.span(0, len(self.line.text))

    @property
    def arguments(self) -> str:
        return self.line.text[self.start :]

    def error(self, message: str, token: Token | None = None) -> DockerfileError:
        """An error at ``token``, or at the arguments, or at the keyword where there are none."""
        if token is None:
            token = self.rest() if self.arguments else self.keyword
        return self.line.error(message, token.start, token.stop)

    def rest(self) -> Token:
        """All arguments as one token."""
        return Token(self.arguments, self.start, len(self.line.text))

    def tokens(self) -> list[Token]:
        """The arguments as words separated by blanks."""
        return blank_separated(self.line.text, self.start)

    def quoted_tokens(self) -> list[Token]:
        """The arguments as words in which quotes and escapes protect blanks."""
        return quoted_words(self.line.text, self.start, self.escape)

    def word(self, token: Token) -> Word:
        return Word(token.text, self.line.span(token.start, token.stop))

    def strings(self) -> tuple[str, ...] | None:
        """The arguments as a JSON array of strings, or None when they are written otherwise."""
        try:
            return json_strings(self.arguments)
        except NotStrings as error:
            raise self.error(str(error)) from None

    def words(self) -> list[Word]:
        """The arguments of an instruction that takes a JSON array or words separated by blanks."""
        strings = self.strings()
        if strings is None:
            return [self.word(token) for token in self.tokens()]
        place = self.rest()
        return [self.word(Token(text, place.start, place.stop)) for text in strings]

    def command(self) -> Command:
        """The arguments of RUN, CMD or ENTRYPOINT."""
        strings = self.strings()
        if strings is not None:
            return ExecForm(strings)
        if not self.arguments:
            raise self.error(f"{self.keyword.text} needs a command")
        return ShellForm(self.arguments)

    def only_word(self, what: str) -> Word:
        """All arguments as one word."""
        if not self.arguments:
            raise self.error(f"{self.keyword.text} needs {what}")
        return self.word(self.rest())


def read_statement(line: LogicalLine, escape: str, start: int = 0) -> Statement:
    """The keyword and the flags of a logical line, or of what stands in it from ``start`` on (ONBUILD)."""
    words = blank_separated(line.text, start)
    keyword = words[0] if words else Token("", start, start)
    flags, arguments = read_flags(line.text, keyword.stop)
    keyword = Token(keyword.text.upper(), keyword.start, keyword.stop)
    return Statement(line, escape, keyword, tuple(flags), arguments)


class Flags(msgspec.Struct, frozen=True):
    """The flags of a statement by name, each known to it and with a value."""

    values: Mapping[str, tuple[Word, ...]]

    def word(self, name: str) -> Word | None:
        """The value of a flag; None when it is not given."""
        return self.values[name][0] if name in self.values else None

    def words(self, name: str) -> tuple[Word, ...]:
        """The values of a flag that may be repeated."""
        return self.values.get(name, ())

    def on(self, name: str) -> bool | None:
        """Whether a switch is on; None when it is not given."""
        word = self.word(name)
        return None if word is None else word.text == "true"


def take_flags(
    statement: Statement, *names: str, switches: tuple[str, ...] = (), repeated: tuple[str, ...] = ()
) -> Flags:
    """The statement's flags, which must be among those named.

    ``switches`` are true, false, or nothing for true; all others need a value, and only the ``repeated`` ones may be
    given more than once.
    """
    values: dict[str, tuple[Word, ...]] = {}
    known = (*names, *switches, *repeated)
    for flag in statement.flags:
        if flag.name not in known:
            hint = did_you_mean(flag.name, known, "--")
            raise statement.error(f"{statement.keyword.text} has no flag --{flag.name}{hint}", flag.token)
        if flag.name in values and flag.name not in repeated:
            raise statement.error(f"--{flag.name} is given twice", flag.token)
        value = _switch(statement, flag) if flag.name in switches else flag.value
        if not value:
            raise statement.error(f"--{flag.name} needs a value: --{flag.name}=VALUE", flag.token)
        word = statement.word(Token(value, flag.token.start, flag.token.stop))
        values[flag.name] = (*values.get(flag.name, ()), word)
    return Flags(values)


def _switch(statement: Statement, flag: FlagText) -> str:
    value = "true" if flag.value is None else flag.value.lower()
    if value not in ("true", "false"):
        raise statement.error(f"--{flag.name}={flag.value}: expected true or false", flag.token)
    return value


def did_you_mean(word: str, names: tuple[str, ...], prefix: str = "") -> str:
    """``: did you mean X?`` when ``word`` is close to one of ``names``, else an empty string."""
    close = closest(word, names)
    return f": did you mean {prefix}{close}?" if close else ""
