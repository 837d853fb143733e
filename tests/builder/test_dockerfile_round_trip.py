"""parse → print → parse gives the same again, however the text is laid out."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.instructions import (
    Add,
    Arg,
    Argument,
    Cmd,
    Copy,
    Dockerfile,
    Document,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Pair,
    Run,
    Shell,
    ShellForm,
    StageText,
    StopSignal,
    User,
    Volume,
    Word,
    Workdir,
)
from builder.dockerfile.parser import parse
from builder.errors import Span
from tests.builder.case_files import Case, cases_with
from tests.builder.dockerfile_text import bare, show, show_file


@pytest.mark.parametrize("case", cases_with("image.txt"), ids=lambda case: case.directory.name)
def test_the_files_of_the_cases(case: Case):
    parsed = parse(case.dockerfile.read_bytes(), "Dockerfile")
    assert bare(parse(show_file(parsed), "Dockerfile")) == bare(parsed)


NOWHERE = Span("", 1, "", 0, 0)
LOCATED = {"span": st.just(NOWHERE), "source": st.just("")}
ESCAPE = "`"  # the one that no JSON needs


def words(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Word]:
    return texts.map(lambda text: Word(text, NOWHERE))


def optional(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


def several(values: st.SearchStrategy[object], least: int = 1) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, min_size=least, max_size=3).map(tuple)


ANY = st.text(st.sampled_from("ab1 /$\t'\"\\`#,<[]{}é\u2028"), max_size=8)
NAME = st.text(string.ascii_lowercase, min_size=1, max_size=4)
PLAIN = st.text(st.sampled_from("ab1./$_:{}\\\"'<"), min_size=1, max_size=6).filter(lambda text: "<<" not in text)
PART = st.one_of(
    st.text(st.sampled_from("ab1./$\\"), min_size=1, max_size=3),
    st.text(st.sampled_from('ab =\\"`#'), max_size=4).map(lambda text: f"'{text}'"),
    st.text(st.sampled_from("ab =\\'#$"), max_size=4).map(lambda text: f'"{text}"'),
    st.sampled_from("ab \"'`$=").map(lambda char: f"{ESCAPE}{char}x"),
)
"""Of a word in which quotes and escapes protect blanks."""
QUOTED = st.lists(PART, max_size=3).map("".join)
KEY = QUOTED.filter(lambda text: text and "=" not in text and not text.startswith("--"))
LINE = st.text(st.sampled_from("ab1 /$'\"\\&|;[#,"), min_size=1, max_size=12).map(str.strip)
LINE = LINE.filter(lambda text: text and text[0] not in "[#")
STRINGS = several(ANY)
COMMAND = st.one_of(LINE.map(ShellForm), STRINGS.map(ExecForm))
FLAG = words(ANY.filter(bool))
MOUNT = words(st.sampled_from(["type=tmpfs,target=/t", 'target=/a,"from=x"', "type=secret,id=s,required"]))
CONTENT = st.lists(st.text(st.sampled_from("ab $<#\t\\`"), max_size=5).map(lambda line: line + "\n"), max_size=3)
CONTENT = CONTENT.map("".join)
DURATION = st.just(0) | st.integers(10**6, 10**15)


PATH = PLAIN.filter(lambda text: not text.startswith(("[", "--", "git@")))
COMMON = {
    "sources": several(words(PATH)),
    "documents": st.just(()),
    "destination": words(PATH),
    "chown": optional(FLAG),
    "chmod": optional(FLAG),
    "link": st.booleans(),
    "excludes": several(FLAG, 0),
}
LITERAL = {"sources": several(words(ANY)), "destination": words(ANY)}
"""Words of a JSON array."""
DOCUMENTS = {
    "sources": several(words(NAME), 0),
    "documents": st.tuples(*(st.builds(Document, st.just(name), CONTENT, st.booleans()) for name in ("X", "Y"))),
    "destination": words(NAME),
}
COPY = {"from_": optional(FLAG), "parents": st.booleans()}
ADD = {"checksum": optional(FLAG), "keep_git_dir": st.booleans(), "unpack": optional(st.booleans())}
RUN = {"mounts": several(MOUNT, 0), "network": optional(FLAG), "security": optional(FLAG)}
PAIRS = several(st.builds(Pair, words(KEY), words(QUOTED)))
HEALTH = dict.fromkeys(("interval_ns", "timeout_ns", "start_period_ns", "start_interval_ns"), DURATION)
TEST = st.one_of(LINE.map(lambda line: ("CMD-SHELL", line)), STRINGS.map(lambda argv: ("CMD", *argv)))

TRIGGERS = st.one_of(
    st.builds(Arg, **LOCATED, arguments=several(st.builds(Argument, words(KEY), optional(words(QUOTED))))),
    st.builds(Env, **LOCATED, pairs=PAIRS),
    st.builds(Label, **LOCATED, pairs=PAIRS),
    st.builds(Run, **LOCATED, **RUN, command=COMMAND),
    st.builds(Run, **LOCATED, **RUN, command=CONTENT.filter(lambda text: text.strip()).map(ShellForm)),
    st.builds(Copy, **LOCATED, **COMMON, **COPY),
    st.builds(Copy, **LOCATED, **COMMON | LITERAL, **COPY),
    st.builds(Copy, **LOCATED, **COMMON | DOCUMENTS, **COPY),
    st.builds(Add, **LOCATED, **COMMON, **ADD),
    st.builds(Workdir, **LOCATED, path=words(LINE)),
    st.builds(User, **LOCATED, user=words(LINE)),
    st.builds(StopSignal, **LOCATED, signal=words(LINE)),
    st.builds(Expose, **LOCATED, ports=several(words(PLAIN))),
    st.builds(Volume, **LOCATED, paths=several(words(ANY.map(str.strip).filter(bool)))),
    st.builds(Cmd, **LOCATED, command=COMMAND),
    st.builds(Entrypoint, **LOCATED, command=COMMAND),
    st.builds(Shell, **LOCATED, argv=STRINGS),
    st.builds(HealthCheck, **LOCATED, **HEALTH, test=TEST, retries=st.integers(0, 9)),
)
INSTRUCTIONS: st.SearchStrategy[Instruction] = st.one_of(
    TRIGGERS,
    TRIGGERS.map(lambda trigger: OnBuild(span=NOWHERE, source="", trigger=show(trigger, ESCAPE))),
    st.builds(Maintainer, **LOCATED, name=LINE),
)
"""Every kind, with all of its fields."""


@st.composite
def layouts(draw: st.DrawFn, line: str) -> str:
    """A logical line over several physical ones, with comments and blank lines between."""
    at = draw(st.integers(1, len(line)))
    if at == len(line) or line[at - 1] == ESCAPE or not line[at:].strip() or line[at:].lstrip().startswith("#"):
        return line
    between = draw(st.sampled_from(["", "# a comment\n", "\n", "  # one `\n\n"]))
    end = draw(st.sampled_from(["\n", " \t\n", "\r\n"]))
    return f"{line[:at]}{ESCAPE}{end}{between}{draw(layouts(line[at:])) if draw(st.booleans()) else line[at:]}"


@settings(max_examples=150)
@given(st.data(), st.lists(INSTRUCTIONS, max_size=3))
def test_instructions_however_they_are_laid_out(data: st.DataObject, instructions: list[Instruction]):
    base = From(span=NOWHERE, source="", image=Word("x", NOWHERE))
    texts = [f"# escape={ESCAPE}"]
    for instruction in (base, *instructions):
        line, *below = show(instruction, ESCAPE).split("\n")
        keyword, blank, rest = line.partition(" ")
        keyword = data.draw(st.sampled_from([keyword, keyword.lower(), f" \t{keyword}"]))
        texts += ["\n".join((data.draw(layouts(keyword + blank + rest)), *below))]
        texts += data.draw(st.sampled_from([[], ["# a comment"], ["", ""]]))
    parsed = parse("\n".join(texts), "Dockerfile")
    assert bare(parsed) == bare(Dockerfile((), (StageText(base, tuple(instructions)),), ESCAPE))
