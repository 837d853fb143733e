"""BuildKit's build checks: each rule broken once, and not broken by what is right."""

from __future__ import annotations

import pytest

from builder.contexts.ignore import IgnoreRules
from builder.dockerfile.lines import read_text
from builder.dockerfile.parser import parse
from builder.errors import DockerfileError
from builder.planning.checks import Checks, Finding, checks_of
from builder.planning.evaluate import Arguments
from builder.planning.lint import lint
from builder.planning.lint_steps import foreign_bases, ignored_sources, undefined_variables
from builder.planning.plan import predefined_args
from cache.oci.descriptor import Platform
from tests.builder.planning import AMD64, base_image, plan_of, steps_of
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
        ("FROM a AS x\nFROM b AS x", "DuplicateStageName", 2),
        ("FROM a AS scratch", "ReservedStageName", 1),
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
        "FROM a\nENV PUBLIC_KEY=1 MONKEY=2 TOKEN_FILE=3 KEY_VERSION=4",
        "FROM --platform=linux/amd64 a AS build-amd64",
        "FROM a\nEXPOSE 80 90/udp $P",
        "from a as b\nrun x",
        "FROM a\nRUN <<EOF\nenv\n\nEOF",
    ],
)
def test_what_is_right(text):
    assert findings(text + "\n") == []


BASE = base_image(env=("FROM_BASE=1", "PATH=/bin"))


def undefined(text: str, build_args: dict[str, str] | None = None) -> list[Finding]:
    stages = steps_of(text, build_args, base=BASE)
    arguments = Arguments(build_args or {}, plan_of(text).global_args, predefined_args(AMD64, AMD64, ""))
    return list(undefined_variables(stages, arguments, "\\"))


@pytest.mark.parametrize(
    ("instructions", "told"),
    [
        ("COPY $foo .", "Usage of undefined variable '$foo'"),
        ("ENV PATH=$PAHT:/app/bin", "Usage of undefined variable '$PAHT' (did you mean $PATH?)"),
        ("ARG DIR=/d\nWORKDIR ${DIRR}/x", "Usage of undefined variable '$DIRR' (did you mean $DIR?)"),
        ("ARG A=$B", "Usage of undefined variable '$B'"),
        ("LABEL a=${X:-default}", "Usage of undefined variable '$X'"),
        ("LABEL a=${FROM_BASE:-$Y}", "Usage of undefined variable '$Y'"),
        ("COPY <<E /x\nexport A=$LANG\nE", "Usage of undefined variable '$LANG'"),
        ("COPY --chown=$U a b", "Usage of undefined variable '$U'"),
        ("RUN --mount=type=cache,target=/x$T y", "Usage of undefined variable '$T'"),
        ("USER $NOBODY", "Usage of undefined variable '$NOBODY'"),
        ("EXPOSE ${PORT}80", "Usage of undefined variable '$PORT'"),
        ("VOLUME /v$V", "Usage of undefined variable '$V'"),
        ("ENV A=1 B=$A", "Usage of undefined variable '$A'"),
    ],
)
def test_undefined_variables(instructions, told):
    text = f"ARG GLOBAL=1\nFROM a\nENV OTHER_NAME=1\n{instructions}\n"
    found = undefined(text)
    assert [(finding.rule, finding.message) for finding in found] == [("UndefinedVar", told)]
    assert found[0].span.line == 4 + instructions.startswith("ARG DIR")


@pytest.mark.parametrize(
    ("text", "build_args"),
    [
        ("FROM a\nENV A=$FROM_BASE\nLABEL a=$A b=$PATH", {}),
        ("FROM a\nARG A\nCOPY $A x", {"A": "a"}),
        ('FROM a\nARG A\nCMD ["$B"]\nRUN $C\nENTRYPOINT $D\nHEALTHCHECK CMD $E\nONBUILD USER $F\nLABEL g=x$A', {}),
        ("FROM a\nARG A=$B", {"A": "given"}),
        ("FROM a AS one\nARG A\nENV B=1\nFROM one\nLABEL a=$A b=$B", {}),
        ("FROM a\nLABEL a='$A' b=\\$A", {}),
        ("FROM a\nCOPY <<'E' /x\n$A\nE", {}),
        ("FROM a\nARG TARGETARCH\nLABEL a=$TARGETARCH", {}),
    ],
)
def test_defined_variables(text, build_args):
    assert undefined(text + "\n", build_args) == []


def test_a_global_argument_is_not_seen_in_a_stage_that_does_not_declare_it():
    (finding,) = undefined("ARG NAME=1\nFROM a\nLABEL a=$NAME\n")
    assert finding.message == "Usage of undefined variable '$NAME'"


@pytest.mark.parametrize(
    ("ignored", "instruction", "told"),
    [
        (
            "tmp",
            "COPY tmp/Dockerfile /",
            ['Attempting to Copy file "tmp/Dockerfile" that is excluded by .dockerignore'],
        ),
        ("*/tmp/*", "ADD ./a/tmp/f /", ['Attempting to Add file "a/tmp/f" that is excluded by .dockerignore']),
        ("*", "COPY . /", ['Attempting to Copy file "." that is excluded by .dockerignore']),
        ("*.md", "COPY *.md /d/", ['Attempting to Copy file "*.md" that is excluded by .dockerignore']),
        ("a", "COPY /a b c /d/", ['Attempting to Copy file "/a" that is excluded by .dockerignore']),
        ("a", "COPY . /", []),
        ("*\n!a", "COPY b /", []),
        ("a", "COPY --from=one a /", []),
        ("a", "COPY b /", []),
    ],
)
def test_ignored_sources(ignored, instruction, told):
    stages = steps_of(f"FROM scratch AS one\nFROM scratch\n{instruction}\n")
    found = ignored_sources(stages, IgnoreRules.parse(ignored))
    assert [(f.rule, f.message, f.span.line) for f in found] == [("CopyIgnoredFile", text, 3) for text in told]


def test_foreign_bases():
    text = (
        "ARG N=im\nFROM ${N}age AS one\nFROM --platform=linux/arm64 other\nCOPY --from=one / /\nCOPY --from=third a /\n"
    )
    plan = plan_of(text)
    configs = {stage.index: base_image() for stage in plan.stages}
    (other,) = foreign_bases(plan, configs, AMD64)
    expected = 'Base image other was pulled with platform "linux/amd64", expected "linux/arm64" for current build'
    assert (other.rule, other.message, other.span.line) == ("InvalidBaseImagePlatform", expected, 3)
    found = foreign_bases(plan, configs, Platform(os="linux", architecture="arm64"))
    assert sorted(finding.message.split(" was")[0] for finding in found) == [
        f"Base image {name}" for name in ("image", "other", "third")
    ]


def test_the_directive():
    text = "# check=skip=A, B;error=true\nFROM a\n"
    assert checks_of(read_text(text, "Dockerfile")) == Checks(frozenset({"A", "B"}), fatal=True)
    assert checks_of(read_text(text, "Dockerfile"), "skip=all") == Checks(frozenset({"all"}))
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
