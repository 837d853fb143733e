"""Here-documents: files written out in the Dockerfile, below the instruction that names them.

A word ``<<NAME`` begins one; ``<<-NAME`` takes the tabs from the beginnings of its lines, and a NAME with quotes or
escapes in it keeps variables from being expanded. RUN, COPY and ADD may have any number, ONBUILD where its trigger may.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from builder.dockerfile.words import NotStrings, blank_separated, json_strings, quoted_words, read_flags, unquoted

_MARK = re.compile(r"(\d*)<<(-?)([^<]+)\Z")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_TAKE_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})


class Mark(msgspec.Struct, frozen=True):
    """The ``word`` that announces a here-document; ``expand`` says whether variables in it have their values."""

    word: str
    name: str
    expand: bool
    chomp: bool

    def is_end(self, line: str) -> bool:
        """True for the line that ends the document."""
        return (line.lstrip("\t") if self.chomp else line).rstrip("\r\n") == self.name


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document; ``text`` is what stands between its marks, whole lines as they are."""

    mark: Mark
    text: str

    @property
    def content(self) -> str:
        """What the file holds, without the tabs that ``<<-`` takes."""
        return _LEADING_TABS.sub("", self.text) if self.mark.chomp else self.text


def read_mark(word: str) -> Mark | None:
    """The mark that a word is, or None when it is a word like any other."""
    match = _MARK.match(word)
    if match is None or len(quoted_words(match[3], 0, "\\")) != 1 or match[3].strip() != match[3]:
        return None
    name = "".join(unquoted(match[3]))
    return Mark(word, name, expand=name == match[3], chomp=match[2] == "-")


def marks_in(line: str) -> tuple[Mark, ...]:
    """The here-documents that an instruction announces, in order; ``line`` is all of it, continuations joined."""
    if "<<" not in line or not _may_have_heredocs(line):
        return ()
    return tuple(_marks(line))


def _marks(line: str) -> Iterator[Mark]:
    words = quoted_words(line, 0, "\\")
    if words and _is_unfinished(words[-1].text):
        return  # BuildKit reads no here-document off a line with an open quote
    for word in words:
        mark = read_mark(word.text)
        if mark is not None:
            yield mark


def _may_have_heredocs(line: str) -> bool:
    """True for the instructions that take them, in another form than a JSON array."""
    start = 0
    keywords = blank_separated(line)
    if keywords[0].text.upper() == "ONBUILD":
        start = keywords[0].stop
        keywords = keywords[1:]
    if not keywords or keywords[0].text.upper() not in _TAKE_HEREDOCS:
        return False
    _, arguments = read_flags(line, max(start, keywords[0].stop))
    try:
        return json_strings(line[arguments:]) is None
    except NotStrings:
        return False


def _is_unfinished(word: str) -> bool:
    quote = ""
    escaped = False
    for char in word:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
    return bool(quote)
