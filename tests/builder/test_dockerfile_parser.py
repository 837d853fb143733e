"""Text → typed instructions."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Label,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
    is_remote,
)
from builder.dockerfile.parser import parse
from builder.errors import DockerfileError


def one(text, escape=""):
    """The only instruction behind FROM."""
    (stage,) = parse(f"{escape}FROM x\n{text}\n", "Dockerfile").stages
    (instruction,) = stage.instructions
    return instruction


def shown(words):
    return [word.text for word in words]


def test_a_whole_file():
    dockerfile = parse(
        "# escape=`\n"
        "ARG BASE=alpine\n"
        "FROM --platform=$BUILDPLATFORM ${BASE} AS Build\n"
        "ARG A B=1\n"
        "run make `\n"
        "    all\n"
        "FROM scratch\n"
        "COPY --from=build /out /\n",
        "Dockerfile",
    )

    assert dockerfile.escape == "`"
    (base_argument,) = dockerfile.global_args[0].arguments
    assert (base_argument.name.text, base_argument.default.text) == ("BASE", "alpine")
    build, final = dockerfile.stages
    assert (build.base.image.text, build.base.name, build.base.platform.text) == ("${BASE}", "build", "$BUILDPLATFORM")
    assert (final.base.image.text, final.base.name, final.base.platform) == ("scratch", "", None)
    arg, run = build.instructions
    assert isinstance(arg, Arg)
    assert [(item.name.text, item.default and item.default.text) for item in arg.arguments] == [("A", None), ("B", "1")]
    assert isinstance(run, Run)
    assert run.command == ShellForm("make     all")
    assert run.source == "run make     all"
    assert (run.span.line, run.span.text) == (5, "run make `")


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("echo  a", ShellForm("echo  a")),
        ('["a", "b c"]', ExecForm(("a", "b c"))),
        (' [ "\\u0061\\n" ] ', ExecForm(("a\n",))),
        ('["\\ud800"]', ExecForm(("\ufffd",))),
        ("['a']", ShellForm("['a']")),
        ('["a"] b', ShellForm('["a"] b')),
        ('["a"', ShellForm('["a"')),
        ("[NaN]", ShellForm("[NaN]")),
        ('{"a": 1}', ShellForm('{"a": 1}')),
        ("[ -f /x ] && y", ShellForm("[ -f /x ] && y")),
        ("-- ls", ShellForm("ls")),
        ("echo $((1<<2)) <<<word 'a <<EOF b'", ShellForm("echo $((1<<2)) <<<word 'a <<EOF b'")),
    ],
)
def test_commands_are_exec_form_only_when_json_arrays(text, command):
    assert one(f"RUN {text}").command == command
    assert one(f"CMD {text}").command == command
    assert one(f"ENTRYPOINT {text}").command == command


def test_cmd_and_entrypoint_may_be_empty_arrays():
    assert one("CMD []") == Cmd(span=one("CMD []").span, source="CMD []", command=ExecForm(()))
    assert isinstance(one("ENTRYPOINT []"), Entrypoint)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("A=1", [("A", "1")]),
        ('A="b c" D=e\\ f G=', [("A", '"b c"'), ("D", "e\\ f"), ("G", "")]),
        ("A='b \"c' D=$E", [("A", "'b \"c'"), ("D", "$E")]),
        ("A=b=c", [("A", "b=c")]),
        ('"A B"=c', [('"A B"', "c")]),
        ("A b  c=d ", [("A", "b  c=d")]),
        ("A=1 \\\n  # comment\n\n  B=2", [("A", "1"), ("B", "2")]),
        ("A=b\\", [("A", "b")]),
        ('A="it\\"s" B=1', [("A", '"it\\"s"'), ("B", "1")]),
    ],
)
def test_pairs_keep_quotes_and_order(text, pairs):
    env, label = one(f"ENV {text}"), one(f"LABEL {text}")

    assert isinstance(env, Env)
    assert isinstance(label, Label)
    assert [(pair.key.text, pair.value.text) for pair in env.pairs] == pairs
    assert [(pair.key.text, pair.value.text) for pair in label.pairs] == pairs


def test_words_know_their_place():
    (pair,) = one("ENV \\\n  NAME=$VALUE").pairs

    assert (pair.value.span.line, pair.value.span.start, pair.value.span.stop) == (3, 7, 13)


def test_copy_and_add():
    copy = one('COPY --from="b" --chown=$U:0 --chmod=0755 a "b" c/')
    assert isinstance(copy, Copy)
    assert shown(copy.sources) == ["a", '"b"']
    assert copy.destination.text == "c/"
    assert (copy.from_.text, copy.chown.text, copy.chmod.text) == ("b", "$U:0", "0755")

    add = one('ADD ["a b", "c"]')
    assert isinstance(add, Add)
    assert (shown(add.sources), add.destination.text) == (["a b"], "c")
    assert (add.chown, add.chmod) == (None, None)


def test_the_rest():
    workdir, user, signal = one("WORKDIR /a b"), one("USER $U:g"), one("STOPSIGNAL SIGTERM")
    assert isinstance(workdir, Workdir)
    assert isinstance(user, User)
    assert isinstance(signal, StopSignal)
    assert (workdir.path.text, user.user.text, signal.signal.text) == ("/a b", "$U:g", "SIGTERM")
    expose, volume, shell = one("EXPOSE 80\t$P"), one('VOLUME ["/a b"]'), one('SHELL ["/bin/bash", "-c"]')
    assert isinstance(expose, Expose)
    assert isinstance(volume, Volume)
    assert isinstance(shell, Shell)
    assert (shown(expose.ports), shown(volume.paths), shell.argv) == (["80", "$P"], ["/a b"], ("/bin/bash", "-c"))
    assert shown(one("VOLUME /a  /b").paths) == ["/a", "/b"]


@pytest.mark.parametrize("source", ["https://x/y", "http://x", "git@x:y", "git://x/y", "ssh://x/y"])
def test_urls_are_remote(source):
    assert is_remote(source)
    assert not is_remote(f"./{source}")


KEYWORDS = ["FROM", "RUN", "COPY", "ENV", "ARG", "VOLUME", "SHELL", "ADD", "AS"]
MARKS = ['"', "'", "\\", "`", "[", '["a"]', "--", "--from=", "<<EOF", "#", "#escape=`", "$", "=", "a"]
BLANKS = [" ", "\t", "\n", "\r\n", "\\\n", "\ufeff", "\x85", "\0", "\x1c"]
PARTS = st.sampled_from([*KEYWORDS, *MARKS, *BLANKS])


@settings(max_examples=300)
@given(st.one_of(st.text(), st.binary(), st.lists(PARTS).map(lambda parts: "FROM x\n" + "".join(parts))))
def test_any_text_is_understood_or_refused_with_a_reason(data):
    try:
        understood = bool(parse(data, "Dockerfile").stages)
    except DockerfileError as error:
        understood = bool(error.message and str(error))

    assert understood


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_no_character_of_an_exec_form_is_lost(argv):
    (stage,) = parse(f"FROM x\nCMD {json.dumps(argv)}\n", "Dockerfile").stages

    assert stage.instructions[0].command == ExecForm(tuple(argv))
