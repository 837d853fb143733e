"""BuildKit's build checks: each rule broken once, and not broken by what is right."""

from __future__ import annotations

import pytest

from builder.dockerfile.lines import read_text
from builder.dockerfile.parser import parse
from builder.errors import DockerfileError
from builder.planning.lint import Checks, checks_of, lint
from builder.planning.plan import predefined_args
from tests.builder.planning import AMD64
from tests.integration.building import Builder, write_files


def findings(text: str) -> list[tuple[str, int]]:
    found = lint(read_text(text, "Dockerfile"), parse(text, "Dockerfile"), predefined_args(AMD64, AMD64, ""))
    return [(finding.rule, finding.span.line) for finding in found]


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("FROM a AS Stage", "StageNameCasing", 1),
        ("FROM a as stage", "FromAsCasing", 1),
        ("from a AS stage", "FromAsCasing", 1),
        ("FROM a\nRUN x \\\n\n  y", "NoEmptyContinuation", 3),
        ("FROM a\nRUN x\nrun y", "ConsistentInstructionCasing", 3),
        ("FROM a\nRun x", "ConsistentInstructionCasing", 2),
        ("from a\nrun x\nENV A=1", "ConsistentInstructionCasing", 3),
        ("FROM a\nCMD x", "JSONArgsRecommended", 2),
        ("FROM a\nENTRYPOINT x", "JSONArgsRecommended", 2),
        ("FROM a\nMAINTAINER me", "MaintainerDeprecated", 2),
        ("FROM ${X:-a}", "UndefinedArgInFrom", 1),
        ("ARG X\nFROM $X", "InvalidDefaultArgInFrom", 2),
        ("ARG X=Y/Z\nFROM a:$X", "InvalidDefaultArgInFrom", 2),
        ("FROM a\nWORKDIR rel", "WorkdirRelativePath", 2),
        ('FROM a\nCMD ["a"]\nCMD ["b"]', "MultipleInstructionsDisallowed", 2),
        ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE", "MultipleInstructionsDisallowed", 2),
        ("FROM a\nENV a b", "LegacyKeyValueFormat", 2),
        ("FROM a\nLABEL a b=c", "LegacyKeyValueFormat", 2),
        ("FROM --platform=${TARGETPLATFORM} a", "RedundantTargetPlatform", 1),
        ("FROM --platform=linux/amd64 a", "FromPlatformFlagConstDisallowed", 1),
        ("FROM a\nARG GITHUB_TOKEN", "SecretsUsedInArgOrEnv", 2),
        ("FROM a\nENV db_password=x", "SecretsUsedInArgOrEnv", 2),
        ("ARG KEY\nFROM a", "SecretsUsedInArgOrEnv", 1),
        ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing", 2),
        ("FROM a\nEXPOSE 8080:80", "ExposeInvalidFormat", 2),
    ],
)
def test_each_rule(text, rule, line):
    assert findings(text + "\n") == [(rule, line)]


@pytest.mark.parametrize(
    "text",
    [
        "ARG X=a\nFROM $X AS stage\nFROM --platform=$BUILDPLATFORM stage",
        'FROM a\nSHELL ["x"]\nCMD y',
        "FROM a\nWORKDIR /abs\nWORKDIR rel",
        "FROM a\nWORKDIR $HOME",
        "FROM a\nRUN x \\\n  # comment\n  y",
        "FROM a\nENV PUBLIC_KEY=1 MONKEY=2",
        "FROM a\nEXPOSE 80 90/udp $P",
        "from a as b\nrun x",
        "FROM a\nRUN <<EOF\nenv\n\nEOF",
    ],
)
def test_what_is_right(text):
    assert findings(text + "\n") == []


def test_the_directive():
    text = "# check=skip=A, B;error=true\nFROM a\n"
    assert checks_of(read_text(text, "Dockerfile")) == Checks(frozenset({"A", "B"}), fatal=True)
    with pytest.raises(DockerfileError, match="expected skip=RULE"):
        checks_of(read_text("# check=skp=A\nFROM a\n", "Dockerfile"))


@pytest.mark.parametrize(
    ("directive", "flags", "status", "warned"),
    [
        ("", ["--no-push"], 0, True),
        ("# check=error=true\n", ["--no-push"], 1, True),
        ("# check=skip=StageNameCasing;error=true\n", ["--no-push"], 0, False),
        ("# check=skip=all\n", ["--check"], 0, False),
        ("", ["--check"], 1, True),
    ],
)
def test_in_a_build(tmp_path, directive, flags, status, warned):
    context = write_files(tmp_path / "context", {"Dockerfile": f"{directive}FROM scratch AS Out\nCOPY Dockerfile /\n"})
    ended = Builder(tmp_path / "home").build(context, *flags)
    assert ended.status == status
    assert ("StageNameCasing: Stage name 'Out' should be lowercase (Dockerfile:" in ended.output) is warned
    assert ("built sha256:" in ended.output) is ("--check" not in flags and status == 0)
