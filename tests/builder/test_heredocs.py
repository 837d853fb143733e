"""Here-documents: which are found, and what they hold. The rules were compared with BuildKit's own parser."""

import pytest

from builder.dockerfile.expansion import expand_document
from builder.dockerfile.heredocs import marks_in
from builder.dockerfile.instructions import Copy, Document, ExecForm, OnBuild, Run, ShellForm, Word
from builder.dockerfile.parser import parse
from builder.errors import DockerfileError, Span


def only(text):
    (instruction,) = parse(f"FROM x\n{text}", "Dockerfile").stages[0].instructions
    return instruction


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("RUN cat <<EOF", ["EOF"]),
        ("copy <<a <<b /", ["a", "b"]),
        ("RUN cat 3<<-'EOF' x", ["EOF"]),
        ('RUN <<"E"O"F"', ["EOF"]),
        ('RUN cat <<"E F"', ["E F"]),
        ("RUN <<$A", ["$A"]),
        ("ONBUILD RUN <<EOF", ["EOF"]),
        ("RUN --network=none <<EOF", ["EOF"]),
        ("RUN cat << EOF", []),
        ("RUN cat <<<EOF", []),
        ("RUN cat <<EOF<x", []),
        ("RUN cat '<<EOF'", []),
        ("RUN echo $((1<<2))", []),
        ("RUN a<<EOF", []),
        ("RUN a <<", []),
        ("RUN <<EOF it's", []),
        ('COPY ["<<EOF", "/x"]', []),
        ("CMD cat <<EOF", []),
        ("ONBUILD", []),
    ],
)
def test_which_words_announce_one(line, names):
    assert [mark.name for mark in marks_in(line)] == names


@pytest.mark.parametrize(
    ("word", "expand", "chomp"),
    [
        ("<<A", True, False),
        ("<<-A", True, True),
        ("<<'A'", False, False),
        ('<<-"A"', False, True),
        (r"<<\A", False, False),
    ],
)
def test_quotes_and_dash(word, expand, chomp):
    (mark,) = marks_in(f"RUN {word}")
    assert (mark.name, mark.expand, mark.chomp) == ("A", expand, chomp)


def test_a_document_alone_is_the_script_of_the_shell():
    assert only("RUN <<EOF\necho $A\n\n# no comment\n \\\nEOF\n").command == ShellForm("echo $A\n\n# no comment\n \\\n")


def test_tabs_go_where_they_are_to_go():
    assert only("RUN <<-EOF\n\t\ta\n \tb\n\tEOF\n").command == ShellForm("a\n \tb\n")


def test_a_document_with_an_interpreter_is_a_file():
    run = only("RUN <<EOF\n#!/usr/bin/python3\nprint()\nEOF\n")
    assert run.command == ShellForm("/dev/pipes/EOF")
    assert run.script == Document("EOF", "#!/usr/bin/python3\nprint()\n", expand=False)


def test_documents_beside_words_are_the_shell_s_business():
    run = only("RUN cat <<A - <<'B' >x\na\nA\nb\nB\n")
    assert run.command == ShellForm("cat <<A - <<'B' >x\na\nA\nb\nB")
    assert run.script is None


def test_a_continuation_comes_before_the_document():
    dockerfile = parse("FROM x\nRUN cat <<EOF \\\n  > f\nx\nEOF\nRUN y\n", "Dockerfile")
    assert [run.command.text for run in dockerfile.stages[0].instructions] == ["cat <<EOF   > f\nx\nEOF", "y"]


def test_carriage_returns_are_kept_inside_and_not_at_the_end():
    assert only("RUN <<EOF\r\nx\r\nEOF\r\n").command == ShellForm("x\r\n")


def test_an_array_has_none():
    run = parse('FROM x\nRUN ["cat", "<<EOF"]\nRUN y\n', "Dockerfile").stages[0].instructions[0]
    assert run == Run(span=run.span, source=run.source, command=ExecForm(("cat", "<<EOF")))


def test_sources_of_a_copy():
    copy = only("COPY a <<one <<-'two' /d/\n1 $A\none\n\t2\n\ttwo\n")
    assert isinstance(copy, Copy)
    assert [word.text for word in copy.sources] == ["a"]
    assert copy.documents == (Document("one", "1 $A\n", True), Document("two", "2\n", False))


def test_a_trigger_keeps_its_documents():
    trigger = only("ONBUILD COPY <<-EOF /x\n\ta\nEOF\n")
    assert isinstance(trigger, OnBuild)
    assert trigger.trigger == "COPY <<-EOF /x\n\ta\nEOF"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\"$A\" '$A' ${B:-b}\n", "\"1\" '1' b\n"),
        ("\\$A \\\\ \\n\n", "$A \\ n\n"),
        ("\\\n", "\n"),
        ("it's\n", "it's\n"),
    ],
)
def test_expansion_leaves_quotes(text, expected):
    assert expand_document(Word(text, Span("Dockerfile", 1, "")), {"A": "1"}) == expected


def test_spans_below_a_document_are_right():
    with pytest.raises(DockerfileError) as caught:
        parse("FROM x\nRUN <<EOF\nRNU a\nEOF\nRNU b\n", "Dockerfile")
    assert caught.value.span.line == 5
