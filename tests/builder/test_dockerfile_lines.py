"""Physical lines → logical lines. The expected texts are those of BuildKit's parser."""

import pytest

from builder.dockerfile.directives import read_directives
from builder.dockerfile.lines import logical_lines, read_text
from builder.errors import DockerfileError


def texts(data, escape="\\"):
    return [line.text for line in logical_lines(read_text(data, "Dockerfile"), escape)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", []),
        ("\n \n# only a comment\n", []),
        ("FROM a\nRUN b", ["FROM a", "RUN b"]),
        ("  FROM a  \n\tRUN b\t\n", ["FROM a", "RUN b"]),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", ["FROM a", "RUN b   c"]),
        ("\ufeffFROM a\n", ["FROM a"]),
        (b"\xef\xbb\xbf# escape=`\nFROM a\n", ["FROM a"]),
        ("RUN a \\\n  b \\\n  c\n", ["RUN a   b   c"]),
        ("RUN a\\\nb\n", ["RUN ab"]),
        ("RUN a \\  \t\n  b\n", ["RUN a   b"]),
        ("RUN a \\\n# comment \\\n  # another\n  b\n", ["RUN a   b"]),
        ("RUN a \\\n\n   \n  b\nRUN c\n", ["RUN a   b", "RUN c"]),
        ("RUN a # not a comment\n", ["RUN a # not a comment"]),
        ("# comment \\\nRUN a\n", ["RUN a"]),
        ("RUN echo \\\\\nRUN b\n", ["RUN echo \\\\", "RUN b"]),
        ("RUN echo \\\\\\\nRUN b\n", ["RUN echo \\\\\\", "RUN b"]),
        ("RUN a \\", ["RUN a"]),
        ("RUN a \\\n# comment\n\n", ["RUN a"]),
        ("\\\nFROM a\n", ["FROM a"]),
        ("FRO\\\nM a\n", ["FROM a"]),
        ("FROM\nRUN\n", ["FROM", "RUN"]),
        ("COMMENT a\n", ["COMMENT a"]),
        ("RUN a\x0bb\x85c\u2028d\n", ["RUN a\x0bb\x85c\u2028d"]),
    ],
)
def test_lines_are_joined_as_buildkit_does(data, expected):
    assert texts(data) == expected


def test_the_escape_character_joins_lines():
    assert texts("RUN a `\n  b\\\nRUN c\n", "`") == ["RUN a   b\\", "RUN c"]


def test_a_place_is_found_in_the_line_where_it_stands():
    text = read_text("FROM a\n  COPY one \\\n  # why\n\n    two three\n", "Dockerfile")
    line = list(logical_lines(text, "\\"))[1]

    start = line.text.index("two")
    span = line.span(start, start + 3)

    assert (span.line, span.text[span.start : span.stop]) == (5, "two")
    whole = line.span(0, len(line.text))
    assert (whole.line, whole.text[whole.start : whole.stop]) == (2, "COPY one ")


@pytest.mark.parametrize(
    ("data", "syntax", "escape", "check"),
    [
        ("FROM a\n", "", "\\", ""),
        ("# escape=`\nFROM a\n", "", "`", ""),
        ("#escape = \\\n", "", "\\", ""),
        ("  #  ESCAPE=`  \r\nFROM a\r\n", "", "`", ""),
        ("# syntax=docker/dockerfile:1\n# check=skip=all\n# escape=`\n", "docker/dockerfile:1", "`", "skip=all"),
        ("\n# escape=`\n", "", "\\", ""),
        ("# a comment\n# escape=`\n", "", "\\", ""),
        ("# other=1\n# escape=`\n", "", "\\", ""),
        ("FROM a\n# escape=`\n", "", "\\", ""),
        ("# escape=`", "", "`", ""),
    ],
)
def test_directives_count_at_the_top_only(data, syntax, escape, check):
    directives = read_directives(read_text(data, "Dockerfile"))

    assert (directives.syntax, directives.escape, directives.check) == (syntax, escape, check)


def test_a_repeated_directive_is_refused():
    with pytest.raises(DockerfileError, match="only one syntax"):
        read_directives(read_text("# syntax=a\n# Syntax=b\n", "Dockerfile"))
