"""Arguments become options; wrong ones a clear message and status 2."""

from pathlib import Path

import pytest

from builder import cli, flags
from builder.contexts.locations import DirectoryContext
from builder.options import BuildOptions, DockerfilePlace
from cache.flags import Effect
from proxy.observe.client_config import print_client_config
from proxy.settings import make_config

PROXIED = ("docker.io=https://registry-1.docker.io", "ghcr.io=https://ghcr.io")


def parse(arguments: list[str], environ: dict[str, str] | None = None) -> BuildOptions:
    values = cli.parse_arguments(arguments)
    assert not isinstance(values, int)
    return cli.make_options(values, {"HOME": "/home/user", **(environ or {})})


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_an_executor_s_command_line(context):
    options = parse(
        [
            f"--context=dir://{context}",
            "--destination=registry.example/app:1",
            "-d",
            "app:2",
            "--cache",
            "--cache-repo=registry.example/cache",
            "--build-arg=A=1",
            "--build-arg",
            "FROM_ENVIRONMENT",
            "--build-arg=ABSENT",
            "--insecure-registry=a:1",
            "--registry-mirror=mirror.example/hub",
            "--registry-map=ghcr.io=mirror.example/ghcr.io",
            "--snapshotMode=redo",
            "--force",
        ],
        {"FROM_ENVIRONMENT": "e"},
    )
    assert [str(name) for name in options.output.destinations] == ["registry.example/app:1", "docker.io/library/app:2"]
    assert options.cache.enabled
    assert str(options.cache.repository) == "registry.example/cache:latest"
    assert options.build_args == {"A": "1", "FROM_ENVIRONMENT": "e"}
    assert options.registry.insecure_hosts == {"a:1"}
    assert options.registry.mirrors == {"docker.io": ("mirror.example/hub",), "ghcr.io": ("mirror.example/ghcr.io",)}
    assert options.dockerfile == DockerfilePlace("Dockerfile")
    assert options.state_dir == Path("/home/user/.cache/crossdock/build")


def test_what_the_proxy_tells_an_executor_is_understood(context):
    said = print_client_config("kaniko", make_config({"hosted": ("cache",), "upstream": PROXIED}, "memory:"), "machine")
    told = [line for line in said.splitlines() if not line.startswith("#")]
    options = parse([str(context), "--no-push", "--cache", *(flag.replace("NAME", "app") for flag in told)])
    ours = "127.0.0.1:5000"
    assert options.registry.mirrors == {
        name.partition("=")[0]: (f"{ours}/{name.partition('=')[0]}",) for name in PROXIED
    }
    assert str(options.cache.repository) == f"{ours}/cache/app:latest"


def test_booleans_are_flags_with_an_optional_value_behind_an_equals_sign(context):
    assert parse([str(context), "--no-push", "--cache"]).cache.enabled
    assert not parse([str(context), "--no-push", "--cache", "--cache=false"]).cache.enabled
    assert parse(["--no-push", "--cache", str(context)]).context == DirectoryContext(context)


def test_short_options_and_booleans_are_read_as_go_s_pflag_reads_them(context):
    options = parse(["-d=a:1", "-d", "b:1", "-dc:1", f"-c={context}", "-f=Other", "--label", "-d=x", "--cache=true"])
    assert [str(name) for name in options.output.destinations] == [f"docker.io/library/{n}:1" for n in "abc"]
    assert options.context == DirectoryContext(context)
    assert options.dockerfile == DockerfilePlace("Other")
    assert options.labels == {"-d": "x"}
    assert options.cache.enabled


def test_times_are_clamped_by_flag_or_environment(context):
    assert parse([str(context), "--no-push"]).clamp_mtime_s is None
    assert parse([str(context), "--no-push", "--reproducible"]).clamp_mtime_s == 0
    assert parse([str(context), "--no-push"], {"SOURCE_DATE_EPOCH": "17"}).clamp_mtime_s == 17


def test_no_push_keeps_names_for_archives(context):
    output = parse([str(context), "--no-push", "-d", "a:1", "--tar-path=image.tar"]).output
    assert output.destinations == ()
    (archive,) = (export for export in output.exports if export.kind == "docker")
    assert [str(name) for name in archive.names] == ["docker.io/library/a:1"]
    assert archive.path == Path("image.tar").absolute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --destination"),
        (["-d", "UPPER:1"], "invalid image reference 'UPPER:1'"),
        (["--no-push", "--build-arg", "=x"], "expected NAME=VALUE"),
        (["--no-push", "--label", "x"], "expected NAME=VALUE"),
        (["--no-push", "--context", "-", "--dockerfile", "-"], "the context or the Dockerfile, not both"),
        (["--no-push", "--max-unpacked-bytes", "much"], "is not a size"),
        (["--no-push", "--max-files", "0"], "expected a number"),
        (["--no-push", "--git", "tag=x"], "expected one of branch"),
        (["--no-push", "--context", "ftp://h/x"], "ftp://… is not supported"),
        (["--no-push", "--custom-platform", "linux"], "not a platform"),
        (["--no-push", "--cache-reop", "x"], "No such option"),
        (["--no-push", "--step-timeout", "10"], "is not a duration"),
        (["--no-push", "--step-timeout", "0"], "expected more than nothing"),
        (["--no-push", "--progress", "html"], "expected auto, plain or json"),
        (["--no-push", "--ignore-path", "tmp"], "expected an absolute path below /"),
        (["--no-push", "--ignore-path", "/[a"], "--ignore-path '/[a': invalid pattern"),
        (["--no-push", "--isolation", "none"], "expected auto, overlay, namespaces or chroot"),
    ],
)
def test_wrong_usage_is_one_paragraph_and_status_2(context, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(context)
    assert cli.main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_a_missing_context_is_named(capsys):
    assert cli.main(["/nowhere", "--no-push"]) == 2
    assert "the context /nowhere is not a directory" in capsys.readouterr().err


def test_every_flag_is_listed_once():
    spellings = [spelling for flag in flags.BUILD for spelling in flag.spellings]
    assert len(spellings) == len(set(spellings))


def test_help_lists_what_is_honoured(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in flags.BUILD:
        assert flag.effect in (Effect.IGNORED, Effect.REFUSED) or f"--{flag.name}" in shown
