"""Instructions become steps with everything expanded."""

import re

import pytest

from builder.errors import DockerfileError
from builder.execution.chmod import ModeChange
from builder.planning.sources import ContextSource, StageSource
from builder.planning.steps import CopyFiles, MakeDirectory, Metadata, RunCommand
from tests.builder.planning import AMD64, base_image, plan_of, steps_of


def test_run_sees_env_and_declared_arguments():
    stage = steps_of(
        'FROM a\nARG A=1\nENV B=2 C=$A\nARG UNSET\nRUN ["prog", "$A"]\nRUN echo $A\n', {"UNDECLARED": "x"}
    )[-1]
    exec_form, shell_form = (step for step in stage.steps if isinstance(step, RunCommand))
    assert exec_form.argv == ("prog", "$A")
    assert shell_form.argv == ("/bin/sh", "-c", "echo $A")
    assert {k: v for k, v in shell_form.environment.items() if k != "PATH"} == {"A": "1", "B": "2", "C": "1"}
    assert shell_form.created_by == "RUN |2 A=1 UNSET= /bin/sh -c echo $A # buildkit"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARG V=arg\nENV V=env", "env"),
        ("ENV V=env\nARG V=arg", "arg"),
        ("ENV V=env\nARG V", "env"),
        ("ARG V=arg\nENV V=$V-env", "arg-env"),
    ],
)
def test_of_arg_and_env_the_later_wins(text, expected):
    stage = steps_of(f"FROM a\n{text}\nRUN x\n")[-1]
    assert stage.steps[-1].environment["V"] == expected


def test_build_args_override_defaults_and_global_args_need_a_declaration():
    text = "ARG G=global\nFROM a\nARG D=default\nRUN one\nARG G\nRUN two\n"
    one, two = (s for s in steps_of(text, {"D": "given"})[-1].steps if isinstance(s, RunCommand))
    assert (one.environment["D"], one.environment.get("G"), two.environment["G"]) == ("given", None, "global")


def test_proxy_arguments_reach_commands_but_not_keys():
    run = steps_of("FROM a\nRUN x\n", {"HTTP_PROXY": "http://p:1", "no_proxy": "n", "OTHER": "o"})[-1].steps[0]
    assert isinstance(run, RunCommand)
    assert run.environment["HTTP_PROXY"] == "http://p:1"
    assert run.environment["no_proxy"] == "n"
    assert "OTHER" not in run.environment
    assert not {"HTTP_PROXY", "no_proxy"} & set(run.keyed_environment)


def test_a_declared_proxy_argument_is_keyed():
    run = steps_of("FROM a\nARG HTTP_PROXY\nRUN x\n", {"HTTP_PROXY": "http://p:1"})[-1].steps[-1]
    assert run.keyed_environment["HTTP_PROXY"] == "http://p:1"


def test_a_stage_on_a_stage_goes_on_from_its_configuration_and_arguments():
    first, second = steps_of(
        'FROM a AS one\nARG A=1\nENV B=2\nWORKDIR /w\nUSER u\nSHELL ["/bin/bash", "-c"]\nFROM one\nRUN $A\n'
    )
    run = second.steps[0]
    assert isinstance(run, RunCommand)
    assert (run.cwd, run.user, run.argv[0]) == ("/w", "u", "/bin/bash")
    assert (run.environment["A"], run.environment["B"]) == ("1", "2")
    assert first.config.config.working_dir == "/w"


def test_copy_expands_paths_and_flags():
    step = steps_of('FROM a\nENV D=/dst U=app\nWORKDIR /w\nCOPY --chown=$U:1 --chmod=0750 ["$D/a", "b c", "${D}/"]\n')[
        -1
    ].steps[-1]
    assert isinstance(step, CopyFiles)
    assert (step.selection.patterns, step.destination, step.workdir) == (("/dst/a", "b c"), "/dst/", "/w")
    assert (step.chown, step.chmod, step.unpack) == ("app:1", ModeChange.parse("0750"), False)
    assert step.origin == ContextSource()
    assert step.created_by == "COPY --chown=app:1 --chmod=0750 /dst/a b c /dst/ # buildkit"


def test_workdir_is_a_step_and_relative_ones_go_on():
    steps = steps_of("FROM a\nWORKDIR /a\nUSER 5\nWORKDIR b\n")[-1].steps
    assert [(s.path, s.user) for s in steps if isinstance(s, MakeDirectory)] == [("/a", ""), ("/a/b", "5")]


def test_metadata_ends_in_the_configuration():
    stage = steps_of(
        'FROM a\nLABEL l=$X"y"\nEXPOSE 80 90/udp\nVOLUME /v\nSTOPSIGNAL INT\nCMD c\nENTRYPOINT ["e"]\n',
        base=base_image(cmd=("old",)),
    )[-1]
    config = stage.config.config
    assert all(isinstance(step, Metadata) for step in stage.steps)
    assert config.labels == {"l": "y"}
    assert set(config.exposed_ports or ()) == {"80/tcp", "90/udp"}
    assert config.volumes == {"/v": {}}
    assert (config.stop_signal, config.entrypoint, config.cmd) == ("INT", ("e",), ("/bin/sh", "-c", "c"))


def test_entrypoint_drops_an_inherited_cmd():
    assert steps_of('FROM a\nENTRYPOINT ["e"]\n', base=base_image(cmd=("old",)))[-1].config.config.cmd is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXPOSE 99999", "invalid port"),
        ("COPY --chmod=0o755 a b", "is not a mode: expected an octal one"),
        ("ARG U=https://host.example/x\nCOPY $U /", "COPY cannot fetch"),
        ("STOPSIGNAL NOPE", "unknown signal"),
        ("WORKDIR $NOTHING", "empty after expansion"),
    ],
)
def test_faults_show_their_line(text, message):
    with pytest.raises(DockerfileError, match=message) as caught:
        steps_of(f"FROM a\n{text}\n")
    assert re.search(r"Dockerfile:[23]\n", str(caught.value))


def test_a_base_s_triggers_come_first_and_are_not_passed_on():
    stage = steps_of("FROM a\nRUN mine\n", base=base_image(on_build=("RUN its", "ENV A=1")))[-1]
    assert [step.created_by for step in stage.steps] == [
        "RUN /bin/sh -c its # buildkit",
        "ENV A=1",
        "RUN /bin/sh -c mine # buildkit",
    ]
    assert stage.config.config.on_build is None


def test_a_fault_in_a_base_s_trigger_says_whose_it_is():
    with pytest.raises(DockerfileError) as caught:
        steps_of("FROM a\n", base=base_image(on_build=("COPY x",)))
    assert "ONBUILD of docker.io/library/a:latest:1" in str(caught.value)


def test_triggers_of_a_stage_run_in_the_stage_on_it_alone():
    text = "FROM a AS one\nONBUILD RUN later\nFROM one AS two\nRUN now\nFROM two\nRUN last\n"
    first, second, third = steps_of(text)
    assert first.config.config.on_build == ("RUN later",)
    assert [s.argv[-1] for s in second.steps if isinstance(s, RunCommand)] == ["later", "now"]
    assert [s.argv[-1] for s in third.steps if isinstance(s, RunCommand)] == ["last"]


def test_a_trigger_may_copy_from_a_stage():
    plan = plan_of("FROM b AS tools\nFROM a\n", image_triggers={1: ["COPY --from=tools /x /y"]})
    assert [stage.name for stage in plan.stages] == ["tools", "stage-1"]
    assert plan.stage(1).takes_from == {(0, 0): StageSource(0)}


def test_from_platform_is_expanded():
    plan = plan_of("FROM --platform=$BUILDPLATFORM a\n")
    assert plan.stage(0).base.platform == AMD64
    with pytest.raises(DockerfileError, match="is not a platform"):
        plan_of("FROM --platform=nonsense a\n")


def test_platform_arguments_may_be_asked_for():
    names = ("TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETSTAGE", "BUILDOSVERSION")
    asked = "".join(f"ARG {name}\n" for name in names)
    run = steps_of(f"FROM a\nRUN no\n{asked}RUN x\n")[-1].steps[-1]
    assert [run.environment[name] for name in names] == ["linux/amd64", "linux", "amd64", "default", ""]
