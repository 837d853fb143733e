"""Every rule that a Dockerfile can break is told with its place: cases/NAME/Dockerfile → error.txt."""

from pathlib import Path

import pytest

from builder.dockerfile.parser import parse
from builder.errors import DockerfileError

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/error.txt"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_is_shown_with_line_and_caret(case):
    with pytest.raises(DockerfileError) as caught:
        parse((case / "Dockerfile").read_bytes(), "Dockerfile")

    assert f"{caught.value}\n" == (case / "error.txt").read_text()


def test_there_are_cases():
    assert len(CASES) > 40


def test_nul_is_refused_and_not_printed():
    with pytest.raises(DockerfileError, match="a NUL character") as caught:
        parse("FROM x\nRUN a\0b\n", "Dockerfile")

    assert "\0" not in str(caught.value)
    assert caught.value.span.start == 5


@pytest.mark.parametrize("data", [b"FROM x\nRUN \xff\n", "FROM x\nRUN \udcff\n"])
def test_what_is_not_utf8_is_refused(data):
    with pytest.raises(DockerfileError, match="Dockerfile is not UTF-8"):
        parse(data, "Dockerfile")
