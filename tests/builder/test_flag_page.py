"""Kaniko's flags and variables: all are in our tables, all of these are options, and the page says what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import pytest

import crossdock
from builder import cli, flags, kaniko_environment, warm_flags
from builder.cli import make_options, parse_arguments
from builder.contexts.locations import GoogleObject, S3Object
from builder.flag_page import PATH, page
from builder.progress import Style
from cache.command_line import make_command, notes
from cache.flags import Effect, Flag, Kind
from tests.builder import kaniko

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_tables_say():
    told = (ROOT / PATH).read_text()
    assert told == page(), f"make it anew: python -m builder.flag_page > {PATH}"


COMMANDS = [
    pytest.param(flags.BUILD, (kaniko.BOOL, kaniko.TEXT, kaniko.LIST), kaniko.SHORT, id="build"),
    pytest.param(
        warm_flags.FLAGS, (kaniko.WARMER_BOOL, kaniko.WARMER_TEXT, kaniko.WARMER_LIST), kaniko.WARMER_SHORT, id="warm"
    ),
    pytest.param(flags.PUSH, (kaniko.PUSH_BOOL, kaniko.PUSH_TEXT, kaniko.PUSH_LIST), kaniko.PUSH_SHORT, id="push"),
]


@pytest.mark.parametrize(("table", "kinds", "short"), COMMANDS)
def test_all_that_kaniko_takes_is_an_option_of_the_same_kind(
    table: Sequence[Flag], kinds: tuple[str, str, str], short: dict[str, str]
):
    command = make_command("test", "", table, click.Argument(["rest"], required=False))
    options = {spelling: option for option in command.params for spelling in option.opts}
    ours = {spelling: flag for flag in table for spelling in flag.spellings}
    assert set(options) - {"rest"} == set(ours)
    expected = {f"--{name}": kind for kind, names in zip(Kind, kinds, strict=True) for name in names.split()}
    expected |= {f"-{letter}": expected[f"--{name}"] for letter, name in short.items()}
    assert {name: ours[name].kind for name in expected if name in ours} == expected
    assert all(ours[name].effect is not Effect.OWN for name in expected)
    for letter, name in short.items():
        assert ours[f"-{letter}"] is ours[f"--{name}"]
    claimed = [flag for flag in table if flag.effect is not Effect.OWN]
    assert [flag.name for flag in claimed if not expected.keys() & set(flag.spellings)] == []


def test_all_variables_and_gates_are_told_of():
    told = {name for variable in kaniko_environment.VARIABLES for name in variable.names}
    told |= {name for flag in flags.BUILD for name in flag.env if name.startswith("KANIKO_")}
    assert told == set(kaniko.VARIABLES.split())
    gates = [*kaniko_environment.ON_GATES, *kaniko_environment.OTHER_GATES]
    assert sorted(gates) == kaniko.GATES.split()


def test_variables_that_are_said_to_count_are_read():
    by_libraries = {"SSL_CERT_DIR", "SSL_CERT_FILE", "AWS_*"}
    code = "".join(
        path.read_text()
        for package in ("builder", "cache")
        for path in (ROOT / package).rglob("*.py")
        if path.name not in ("kaniko_environment.py", "flags.py")
    )
    names = {
        name.partition("<")[0]
        for variable in kaniko_environment.VARIABLES
        if variable.effect is Effect.SAME
        for name in variable.names
    }
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    assert {name for name in names - by_libraries - proxies if f'"{name}' not in code} == set()


def test_what_has_no_effect_is_accepted_and_said():
    ignored = [flag for flag in flags.BUILD if flag.effect is Effect.IGNORED]
    given = [f"--{flag.name}" if flag.kind is Kind.BOOL else f"--{flag.name}=1" for flag in ignored]
    values = parse_arguments([*given, "--no-push", "--materialize=false"])
    assert not isinstance(values, int)
    assert notes(values, flags.BUILD) == [
        f"note: --{flag.name} changes nothing here: {flag.help}" for flag in flags.BUILD if flag in ignored
    ]


@pytest.mark.parametrize("flag", ["--materialize", "--azure-container-registry-config=/file"])
def test_what_is_refused_says_what_to_do(flag, capsys):
    assert cli.main(["--no-push", flag]) == 2
    refused = next(known for known in flags.BUILD if flag.partition("=")[0] in known.spellings)
    assert f"--{refused.name}: {refused.help}" in " ".join(capsys.readouterr().err.split())


def options(*arguments: str, **environ: str):
    values = parse_arguments(["--no-push", *arguments])
    assert not isinstance(values, int)
    return make_options(values, {"HOME": "/nonexistent", **environ})


def test_a_bucket_is_a_context():
    assert options("-b=name").context == GoogleObject("name", "context.tar.gz")
    assert options("--bucket", "s3://name/key").context == S3Object("name", "key")
    with pytest.raises(click.UsageError, match="give the context once"):
        options("-b=name", "-c", "gs://name")


def test_the_plan_that_a_variable_asks_for_does_not_stand_in_for_the_build(monkeypatch):
    monkeypatch.setenv("KANIKO_PRINT_PLAN", "1")
    asked = options("-c", "gs://b")
    assert asked.print_plan
    assert not asked.dry_run


def test_the_log_s_format_is_that_of_the_progress():
    assert cli._style("", "") is Style.AUTO
    assert [cli._style("", text) for text in ("color", "text", "json")] == [Style.AUTO, Style.PLAIN, Style.JSON]
    assert cli._style("plain", "json") is Style.PLAIN
    with pytest.raises(click.UsageError, match="--log-format xml: expected color, text, json"):
        cli._style("", "xml")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["version"], 0, "crossdock 0"),
        (["push", "--help"], 0, "Usage: crossdock push"),
        (["login", "--help"], 0, "Usage: crossdock login"),
        (["--help"], 0, "Usage: crossdock build"),
        (["bake", "file.json"], 2, "unknown command 'bake'"),
    ],
)
def test_the_executor_s_own_commands(arguments, status, says, capsys):
    assert crossdock.main(["/kaniko/executor", *arguments]) == status
    shown = capsys.readouterr()
    assert says in shown.out + shown.err
