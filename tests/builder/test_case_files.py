"""The cases are whole, and those that their list names are there."""

from __future__ import annotations

import re

import pytest

from tests.builder.case_files import CASES

KINDS = ("error.txt", "failure.txt", "image.txt", "warnings.txt")
LISTED = re.findall(r"^\| (?!trouble)([^|]+) \| ([^|]+) \|$", (CASES / "README.md").read_text(), re.MULTILINE)


def test_each_case_says_what_comes_out():
    cases = [path for path in CASES.iterdir() if path.is_dir()]
    assert len(cases) >= 250
    assert [case.name for case in cases if not (case / "Dockerfile").is_file()] == []
    assert [case.name for case in cases if not any((case / kind).is_file() for kind in KINDS)] == []


@pytest.mark.parametrize(("trouble", "names"), LISTED, ids=[trouble for trouble, _ in LISTED])
def test_what_users_of_kaniko_ran_into_has_cases(trouble: str, names: str):
    cases = re.findall(r"`([a-z_]+)`", names)
    assert cases
    assert [name for name in cases if not (CASES / name).is_dir()] == []


def test_the_list_is_read():
    assert len(LISTED) > 20
