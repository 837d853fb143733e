"""Parser directives: the ``# name=value`` comments at the very top of a Dockerfile."""

from __future__ import annotations

import re

import msgspec

from builder.dockerfile.lines import Text
from builder.dockerfile.words import SPACE
from builder.errors import DockerfileError

_DIRECTIVE = re.compile(r"#[\t-\r \x85\xa0]*([A-Za-z][A-Za-z0-9]*)[\t-\r ]*=[\t-\r ]*(.+?)[\t-\r ]*$")
_KNOWN = frozenset({"syntax", "escape", "check"})


class Directives(msgspec.Struct, frozen=True):
    """``syntax`` (an image) and ``check`` (lint rules) are noted and change nothing; ``escape`` is one character.

    ``lines`` is how many lines at the top they are.
    """

    syntax: str = ""
    escape: str = "\\"
    check: str = ""
    lines: int = 0


def read_directives(source: Text) -> Directives:
    """The directives of a file: they end at the first line that is none, be it blank or a mere comment.

    Raises DockerfileError for a repeated directive and for another escape than a backslash or a back quote.
    """
    found: dict[str, str] = {}
    for index, line in enumerate(source.lines):
        match = _DIRECTIVE.match(line.lstrip(SPACE))
        name = match[1].lower() if match else ""
        if match is None or name not in _KNOWN:
            break
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", source.span(index))
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(f"invalid escape {match[2]!r}: expected ` or \\", source.span(index))
        found[name] = match[2]
    return Directives(**found, lines=len(found))
