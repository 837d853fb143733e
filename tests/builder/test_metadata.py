"""Instructions' effects on an image's configuration, and the words of its history."""

import pytest

from builder.dockerfile.instructions import ExecForm, ShellForm
from builder.planning import history, metadata
from cache.oci.config import ContainerConfig, History, ImageConfig, RootFS


def image(**fields):
    return ImageConfig(os="linux", architecture="amd64", config=ContainerConfig(**fields), rootfs=RootFS())


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (None, ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)),
        (("A=b",), ("A=b", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
        (("PATH=",), ("PATH=",)),
        (("PATH=/bin", "A=b"), ("PATH=/bin", "A=b")),
    ],
)
def test_a_stage_has_a_path(env, expected):
    assert metadata.stage_config(image(env=env)).config.env == expected


def test_a_stage_does_not_inherit_triggers():
    assert metadata.stage_config(image(on_build=("RUN a",))).config.on_build is None


def test_env_keeps_order_and_overrides_in_place():
    config = metadata.with_env(image(env=("A=1", "B=2", "C")), [("B", "x=y"), ("D", ""), ("C", "3"), ("D", "4")])

    assert config.config.env == ("A=1", "B=x=y", "C=3", "D=4")
    assert metadata.environment(config) == {"A": "1", "B": "x=y", "C": "3", "D": "4"}


def test_labels_are_added_and_overridden():
    config = metadata.with_labels(image(labels={"a": "1", "b": "2"}), [("b", "3"), ("c", "4")])

    assert config.config.labels == {"a": "1", "b": "3", "c": "4"}
    assert metadata.with_labels(image(), [("a", "b")]).config.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("specs", "ports"),
    [
        (["80"], ("80/tcp",)),
        (["80/udp", "80/TCP", "9/sctp"], ("80/udp", "80/tcp", "9/sctp")),
        (["7000-7002"], ("7000/tcp", "7001/tcp", "7002/tcp")),
        (["53-54/udp"], ("53/udp", "54/udp")),
        (["8080:80", "127.0.0.1:8080:80/udp", "[::1]:1:2"], ("80/tcp", "80/udp", "2/tcp")),
        (["0", "65535", "080"], ("0/tcp", "65535/tcp", "80/tcp")),
        ([], ()),
    ],
)
def test_ports(specs, ports):
    assert metadata.parse_ports(specs) == ports


@pytest.mark.parametrize(
    "spec", ["", "/tcp", "x", "80/icmp", "65536", "3-2", "1-2-3", "-1", "1-", "host:80", "²", "80:"]
)
def test_bad_ports(spec):
    with pytest.raises(ValueError, match="port"):
        metadata.parse_ports([spec])


def test_ports_and_volumes_are_sets_in_order():
    ports = metadata.with_ports(image(exposed_ports={"90/tcp": {}}), ["80/tcp", "90/tcp"])
    volumes = metadata.with_volumes(image(volumes={"/z": {}}), ["/a", "/z"])

    assert list(ports.config.exposed_ports.items()) == [("80/tcp", {}), ("90/tcp", {})]
    assert list(volumes.config.volumes.items()) == [("/a", {}), ("/z", {})]
    with pytest.raises(ValueError, match="empty"):
        metadata.with_volumes(image(), [""])


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("", "a", "/a"),
        ("/", ".", "/"),
        ("/a", "b/../c/", "/a/c"),
        ("/a", "/b", "/b"),
        ("/a", "../../..", "/"),
        ("/a", "//b//c", "/b/c"),
        ("/a", "", "/a"),
        ("a", "b", "/a/b"),
    ],
)
def test_workdir(before, path, after):
    assert metadata.with_workdir(image(working_dir=before), path).config.working_dir == after


def test_user_shell_and_signal():
    assert metadata.with_user(image(), "me:us").config.user == "me:us"
    assert metadata.with_shell(image(), ["/bin/bash", "-c"]).config.shell == ("/bin/bash", "-c")


@pytest.mark.parametrize("name", ["SIGTERM", "term", "KILL", "9", "37", "SIGRTMIN+3", "RTMAX-2", "RTMIN", "sigusr1"])
def test_signals(name):
    assert metadata.with_stop_signal(image(), name).config.stop_signal == name


@pytest.mark.parametrize("name", ["", "0", "-1", "SIGNOTHING", "TERM ", "RTMIN+16", "RTMIN+", "²"])
def test_no_signals(name):
    with pytest.raises(ValueError, match="unknown signal"):
        metadata.with_stop_signal(image(), name)


def test_shell_forms_go_to_the_shell():
    bash = metadata.with_shell(image(), ["/bin/bash", "-ec"])

    assert metadata.with_cmd(image(), ShellForm("a b")).config.cmd == ("/bin/sh", "-c", "a b")
    assert metadata.with_cmd(bash, ShellForm("a b")).config.cmd == ("/bin/bash", "-ec", "a b")
    assert metadata.with_cmd(bash, ExecForm(("a", "b"))).config.cmd == ("a", "b")
    assert metadata.with_cmd(bash, ExecForm(())).config.cmd == ()
    assert metadata.shell_argv(bash, ShellForm("x")) == ("/bin/bash", "-ec", "x")


def test_entrypoint_drops_a_cmd_of_the_base_only():
    base = image(cmd=("sh",))

    inherited = metadata.with_entrypoint(base, ExecForm(("a",)), cmd_set=False).config
    own = metadata.with_entrypoint(base, ShellForm("a"), cmd_set=True).config

    assert (inherited.entrypoint, inherited.cmd) == (("a",), None)
    assert (own.entrypoint, own.cmd) == (("/bin/sh", "-c", "a"), ("sh",))
    assert metadata.with_entrypoint(base, ExecForm(()), cmd_set=True).config.entrypoint is None


def test_history():
    entry = metadata.history_entry("ENV a=b", "2026-01-02T03:04:05Z", empty_layer=True)

    assert metadata.with_history(image(), entry).history == (
        History(
            created="2026-01-02T03:04:05Z",
            created_by="ENV a=b",
            comment="buildkit.dockerfile.v0",
            empty_layer=True,
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (history.arg_text([("A", None), ("B", "x")]), "ARG A B=x"),
        (history.env_text([("A", "b c"), ("D", "")]), "ENV A=b c D="),
        (history.label_text([("a", "b")]), "LABEL a=b"),
        (history.run_text(["/bin/sh", "-c", "apt-get  update"], {}), "RUN /bin/sh -c apt-get  update # buildkit"),
        (history.run_text(["a"], {"X": "1", "Y": ""}), "RUN |2 X=1 Y= a # buildkit"),
        (history.copy_text("COPY", ["a", "b"], "c/", {}), "COPY a b c/ # buildkit"),
        (
            history.copy_text("ADD", ["a"], "b", {"link": False, "chown": "1:2", "chmod": "755"}),
            "ADD --chown=1:2 --chmod=755 a b # buildkit",
        ),
        (history.workdir_text("/app"), "WORKDIR /app"),
        (history.user_text("me"), "USER me"),
        (history.expose_text(["80/tcp", "81/udp"]), "EXPOSE [80/tcp 81/udp]"),
        (history.volume_text(["/a", "/b"]), "VOLUME [/a /b]"),
        (history.cmd_text(["sh", "-c", 'a "b" \\']), 'CMD ["sh" "-c" "a \\"b\\" \\\\"]'),
        (history.entrypoint_text(["a\n\x01\x7fä\u200b\U000e0001"]), 'ENTRYPOINT ["a\\n\\x01\\x7fä\\u200b\\U000e0001"]'),
        (history.cmd_text([]), "CMD []"),
        (history.shell_text(["/bin/bash", "-c"]), "SHELL [/bin/bash -c]"),
        (history.stop_signal_text("9"), "STOPSIGNAL 9"),
    ],
)
def test_history_texts_are_buildkits(text, expected):
    assert text == expected
