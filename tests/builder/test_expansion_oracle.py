"""Expansion beside bash, for the forms that mean the same in a Dockerfile and in a shell's assignment.

Left out is what BuildKit, and we with it, reads otherwise than a shell: quotes and escapes in the words of a variable
that stands in double quotes, quotes and brackets in patterns, other escapes there than of ``* ? \\``, and escapes in
replacements.
"""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.expansion import expand
from builder.dockerfile.instructions import Word
from builder.errors import Span

NAMES = st.sampled_from(["A", "B_1", "EMPTY", "UNSET"])
VALUES = st.text(st.sampled_from("ab/.* ?"), min_size=1, max_size=6)


def text(letters: str, least: int = 1) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from(letters), min_size=least, max_size=3)


def joined(*parts: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(*parts), min_size=least, max_size=3).map("".join)


SIMPLE = st.builds("${{{}}}".format, NAMES) | st.builds("${}.".format, NAMES)
ESCAPED = st.sampled_from("ab$\\\"'*}").map(lambda char: "\\" + char)
SINGLE = text('ab $\\"*}`', 0).map(lambda inside: f"'{inside}'")
IN_DOUBLE = st.sampled_from([r"\$", r"\\", r"\"", r"\a"])
GLOB = text("ab/.*?")
PATTERN = joined(GLOB, SIMPLE, st.sampled_from([r"\*", r"\?", r"\\"]))


def variables(word: st.SearchStrategy[str], pattern: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """``${…}`` in every form, with such words and patterns in it."""
    conditional = st.builds("${{{}{}{}}}".format, NAMES, st.sampled_from([":-", "-", ":+", "+"]), word)
    trimmed = st.builds("${{{}{}{}}}".format, NAMES, st.sampled_from(["#", "##", "%", "%%"]), pattern)
    slashes = st.sampled_from(["/", "//"])
    replaced = st.builds("${{{}{}{}/{}}}".format, st.sampled_from(["A", "B_1"]), slashes, text("ab.*?"), text("xy", 0))
    return st.one_of(SIMPLE, conditional, trimmed, replaced)


QUOTED_WORD = st.deferred(lambda: joined(text("ab/.* "), QUOTED_VARIABLE))
QUOTED_VARIABLE: st.SearchStrategy[str] = variables(QUOTED_WORD, joined(GLOB, SIMPLE))
DOUBLE = joined(text("ab '*{}"), IN_DOUBLE, QUOTED_VARIABLE).map(lambda inside: f'"{inside}"')
WORD = st.deferred(lambda: joined(text("ab/.* "), ESCAPED, SINGLE, DOUBLE, VARIABLE))
VARIABLE: st.SearchStrategy[str] = variables(WORD, PATTERN)
WORDS = joined(text("ab/.:*{"), ESCAPED, SINGLE, DOUBLE, VARIABLE, least=1)


@pytest.mark.timeout(60)
@settings(max_examples=250)
@given(WORDS, VALUES, VALUES)
def test_a_word_is_what_bash_assigns(written: str, a: str, b: str):
    env = {"A": a, "B_1": b, "EMPTY": ""}
    script = f'x={written}\nprintf %s "$x"'
    told = subprocess.run(["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert expand(Word(written, Span("", 1, written, 0, len(written))), env) == told.stdout
