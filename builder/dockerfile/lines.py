"""A Dockerfile's text cut into logical lines: instructions with their continuation lines joined.

Which physical lines belong together is asked of the `dockerfile-parse` library. It knows nothing of some rules of
BuildKit (blank lines inside a continuation, a doubled escape at the end of a line, a continuation that the end of the
file cuts off, keywords without arguments), so it reads a plain form of the text in which those cases do not occur.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import DockerfileError, Span

SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""White space as Go's ``unicode.IsSpace`` has it; Python's ``str.strip`` takes some control characters beside."""


@dataclass(frozen=True, slots=True)
class Text:
    """The physical lines of a file, without their ends."""

    file: str
    lines: tuple[str, ...]

    def span(self, index: int, start: int = 0, stop: int | None = None) -> Span:
        """The place in line ``index`` (from 0); to the line's end without ``stop``."""
        line = self.lines[index]
        return Span(self.file, index + 1, line, start, len(line) if stop is None else stop)


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a part of a logical line comes from: its offset there, and the physical line (from 0) and column."""

    offset: int
    index: int
    column: int


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction: its text without comments and continuation marks, and where each part of it stands."""

    source: Text
    text: str
    pieces: tuple[Piece, ...]

    def span(self, start: int, stop: int) -> Span:
        """The place of ``text[start:stop]``; of its first physical line where it goes over several."""
        number = max(0, bisect_right(self.pieces, start, key=lambda piece: piece.offset) - 1)
        piece = self.pieces[number]
        if number + 1 < len(self.pieces):
            stop = min(stop, self.pieces[number + 1].offset)
        shift = piece.column - piece.offset
        return self.source.span(piece.index, start + shift, stop + shift)

    def error(self, message: str, start: int, stop: int) -> DockerfileError:
        return DockerfileError(message, self.span(start, stop))


def read_text(data: bytes | str, file: str) -> Text:
    """The lines of ``data``, without a byte order mark.

    Raises DockerfileError for what is not UTF-8 text.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data.encode("utf-8").decode("utf-8")
    except UnicodeError:
        raise DockerfileError(f"{file} is not UTF-8 text") from None
    source = Text(file, tuple(line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")))
    for index, line in enumerate(source.lines):
        if "\0" in line:
            column = line.index("\0")
            shown = line.replace("\0", "\ufffd")
            raise DockerfileError("a NUL character", Span(file, index + 1, shown, column, column + 1))
    return source


def is_comment(line: str) -> bool:
    return line.lstrip(SPACE).startswith("#")


@dataclass(frozen=True, slots=True)
class _Part:
    """What a physical line gives to its instruction, the column it begins at, and whether the next line goes on."""

    text: str
    column: int
    continued: bool


def logical_lines(source: Text, escape: str) -> Iterator[LogicalLine]:
    """The instructions of ``source``, in order; comments and blank lines are left out."""
    parts = _parts(source, escape)
    for first, last in _groups(_plain_form(parts)):
        yield _join(source, parts, first, min(last + 1, len(parts)))


def _parts(source: Text, escape: str) -> list[_Part | None]:
    """What each line gives; None for comments and for blank lines."""
    mark = re.escape(escape)
    # BuildKit: an escape before the mark means that the mark is text.
    continuation = re.compile(rf"(?:^|(?<=[^{mark}])){mark}[ \t]*$")
    parts: list[_Part | None] = []
    continued = False
    for line in source.lines:
        if is_comment(line) or not line.strip(SPACE):
            parts.append(None)
            continue
        # Blanks before an instruction go, those before a continuation line stay.
        body = line if continued else line.lstrip(SPACE)
        text = continuation.sub("", body)
        column = len(line) - len(body)
        continued = len(text) < len(body)
        parts.append(_Part(text, column, continued))
    return parts


def _plain_form(parts: list[_Part | None]) -> str:
    """The text with the same lines, in which nothing is left that the library would read otherwise than BuildKit.

    Blank lines and comments become bare comments, a line that ends an instruction ends in a full stop, and so does a
    continuation that the end of the file cuts off.
    """
    plain = ["#" if part is None else part.text + ("\\" if part.continued else " .") for part in parts]
    given = [part for part in parts if part is not None]
    cut_off = bool(given) and given[-1].continued
    return "\n".join([*plain, "." if cut_off else "#", ""])


def _groups(plain: str) -> Iterator[tuple[int, int]]:
    """The first and last line of each instruction, as the library finds them."""
    from dockerfile_parse import DockerfileParser  # 20 ms that a command without a Dockerfile need not pay

    for entry in DockerfileParser(fileobj=io.BytesIO(plain.encode("utf-8"))).structure:
        if not entry["content"].startswith("#"):
            yield entry["startline"], entry["endline"]


def _join(source: Text, parts: list[_Part | None], start: int, stop: int) -> LogicalLine:
    text = ""
    pieces: list[Piece] = []
    for index, part in enumerate(parts[start:stop], start):
        if part is not None:
            pieces.append(Piece(len(text), index, part.column))
            text += part.text
    return LogicalLine(source, text.rstrip(SPACE), tuple(pieces))
