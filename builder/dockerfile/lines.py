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

import msgspec

from builder.dockerfile.heredocs import Heredoc, Mark, marks_in
from builder.dockerfile.words import SPACE
from builder.errors import DockerfileError, Span


class Text(msgspec.Struct, frozen=True):
    """The physical lines of a file, without their ends; ``raw`` still has the carriage returns."""

    file: str
    lines: tuple[str, ...]
    raw: tuple[str, ...]

    def span(self, index: int, start: int = 0, stop: int | None = None) -> Span:
        """The place in line ``index`` (from 0); to the line's end without ``stop``."""
        line = self.lines[index]
        return Span(self.file, index + 1, line, start, len(line) if stop is None else stop)


class Piece(msgspec.Struct, frozen=True):
    """Where a part of a logical line comes from: its offset there, and the physical line (from 0) and column."""

    offset: int
    index: int
    column: int


class LogicalLine(msgspec.Struct, frozen=True):
    """One instruction: its text without comments and continuation marks, where each part of it stands, and the
    here-documents below it."""

    source: Text
    text: str
    pieces: tuple[Piece, ...]
    heredocs: tuple[Heredoc, ...] = ()

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
    raw = tuple(text.removeprefix("\ufeff").split("\n"))
    source = Text(file, tuple(line.rstrip("\r") for line in raw), raw)
    for index, line in enumerate(source.lines):
        if "\0" in line:
            column = line.index("\0")
            shown = line.replace("\0", "\ufffd")
            raise DockerfileError("a NUL character", Span(file, index + 1, shown, column, column + 1))
    return source


def is_comment(line: str) -> bool:
    return line.lstrip(SPACE).startswith("#")


class _Part(msgspec.Struct, frozen=True):
    """What a physical line gives to its instruction, the column it begins at, and whether the next line goes on."""

    text: str
    column: int
    continued: bool


def logical_lines(source: Text, escape: str) -> Iterator[LogicalLine]:
    """The instructions of ``source``, in order; comments and blank lines are left out.

    Raises DockerfileError for a here-document without an end.
    """
    reader = _Reader(source, escape)
    reader.read()
    for first, last in _groups(_plain_form(reader.parts)):
        yield reader.join(first, min(last + 1, len(reader.parts)))


class _Reader:
    """Goes through the physical lines: ``parts`` has what each gives, None for comments, blanks and documents."""

    def __init__(self, source: Text, escape: str) -> None:
        self.source = source
        mark = re.escape(escape)
        # BuildKit: an escape before the mark means that the mark is text.
        self.continuation = re.compile(rf"(?:^|(?<=[^{mark}])){mark}[ \t]*$")
        self.parts: list[_Part | None] = []
        self.heredocs: dict[int, tuple[Heredoc, ...]] = {}

    def read(self) -> None:
        text, continued = "", False
        while len(self.parts) < len(self.source.lines):
            part = self._part(self.source.lines[len(self.parts)], continued=continued)
            self.parts.append(part)
            if part is None:
                continue
            text, continued = text + part.text, part.continued
            if not continued:
                self._take_documents(marks_in(text))
                text = ""
        self._take_documents(marks_in(text))

    def _part(self, line: str, *, continued: bool) -> _Part | None:
        if is_comment(line) or not line.strip(SPACE):
            return None
        # Blanks before an instruction go, those before a continuation line stay.
        body = line if continued else line.lstrip(SPACE)
        text = self.continuation.sub("", body)
        return _Part(text, len(line) - len(body), len(text) < len(body))

    def _take_documents(self, marks: tuple[Mark, ...]) -> None:
        """Reads the documents that the instruction that has just ended announces."""
        announced = len(self.parts) - 1
        documents = []
        for mark in marks:
            start = len(self.parts)
            while len(self.parts) < len(self.source.raw) and not mark.is_end(self.source.raw[len(self.parts)]):
                self.parts.append(None)
            if len(self.parts) == len(self.source.raw):
                raise self._without_end(mark, announced)
            body = self.source.raw[start : len(self.parts)]
            self.parts.append(None)
            documents.append(Heredoc(mark, "".join(f"{line}\n" for line in body)))
        if documents:
            self.heredocs[announced] = tuple(documents)

    def _without_end(self, mark: Mark, announced: int) -> DockerfileError:
        index = next((i for i in range(announced, -1, -1) if mark.word in self.source.lines[i]), announced)
        start = max(0, self.source.lines[index].find(mark.word))
        place = self.source.span(index, start, start + len(mark.word))
        return DockerfileError(f"the here-document has no end: expected a line {mark.name!r} below", place)

    def join(self, start: int, stop: int) -> LogicalLine:
        """The instruction in the physical lines from ``start`` up to ``stop``."""
        text = ""
        pieces: list[Piece] = []
        heredocs: tuple[Heredoc, ...] = ()
        for index, part in enumerate(self.parts[start:stop], start):
            if part is not None:
                pieces.append(Piece(len(text), index, part.column))
                text += part.text
                heredocs = self.heredocs.get(index, ())
        return LogicalLine(self.source, text.rstrip(SPACE), tuple(pieces), heredocs)


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
