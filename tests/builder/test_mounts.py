"""RUN --mount: its text, its part in keys, caches that builds share, secrets and agents."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from builder.dockerfile.instructions import Word
from builder.dockerfile.mounts import Mount, read_mount
from builder.errors import Span
from builder.options import SecretText, StepSecrets
from builder.sandbox.agent_socket import forwarded_agent
from builder.sandbox.cache_mounts import CacheDirectories
from builder.sandbox.run_mounts import FileMount
from cache.keys import KeyBuilder
from tests.builder.planning import keys_of, layer_keys, steps_of
from tests.integration.building import Builder, push_base, write_files

KEY = KeyBuilder("test").key()


def mount(text: str) -> Mount:
    return read_mount(Word(text, Span("Dockerfile", 1, text)), lambda word: word.text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", Mount(type="bind", target="/x")),
        ("type=BIND,dst=/x,src=a,rw", Mount(type="bind", target="/x", source="a", writable=True)),
        ("target=/x,rw,ro", Mount(type="bind", target="/x")),
        ("target=/x,readonly=false", Mount(type="bind", target="/x", writable=True)),
        ("type=cache,destination=/x", Mount(type="cache", target="/x", writable=True)),
        ("type=cache,target=/x,readwrite=0", Mount(type="cache", target="/x")),
        (
            "type=cache,target=/x,id=i,sharing=Locked,mode=0750,uid=1,gid=2,from=s",
            Mount(
                type="cache",
                target="/x",
                id="i",
                sharing="locked",
                mode=0o750,
                uid=1,
                gid=2,
                from_="s",
                writable=True,
            ),
        ),
        ("type=tmpfs,target=/x,size=1.5k", Mount(type="tmpfs", target="/x", size_bytes=1536, writable=True)),
        ("type=secret,id=i,required,env=E", Mount(type="secret", id="i", required=True, env="E")),
        ("type=ssh", Mount(type="ssh")),
        ('"target=/a,b"', Mount(type="bind", target="/a,b")),
    ],
)
def test_text(text, expected):
    assert mount(text) == expected


def test_default_places():
    run = steps_of("FROM a\nWORKDIR /w\nRUN --mount=type=secret,id=d/i --mount=target=rel --mount=type=ssh x\n")[
        -1
    ].steps[-1]
    assert [wanted.target for wanted in run.mounts] == ["/run/secrets/i", "/w/rel", "/run/buildkit/ssh_agent.2"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("RUN x", "RUN --network=default x", True),
        ("RUN x", "RUN --network=none x", False),
        ("RUN x", "RUN --mount=type=tmpfs,target=/t x", False),
        ("RUN --mount=type=cache,target=/t x", "RUN --mount=type=cache,target=/t,id=i x", False),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=a,required x", True),
        ("RUN <<E\n#!/a\n1\nE", "RUN <<E\n#!/a\n2\nE", False),
        ("COPY <<E /x\n1\nE", "COPY <<E /x\n2\nE", False),
        ("COPY a /x", "COPY --parents a /x", True),  # the content, which differs, stands for it
    ],
)
def test_what_is_in_the_key(one, other, same):
    assert (layer_keys(f"FROM a\n{one}\n") == layer_keys(f"FROM a\n{other}\n")) is same


def test_the_files_of_a_bind_are_in_the_key():
    text = "FROM a\nRUN --mount=target=/src x\n"
    assert layer_keys(text, content="one") != layer_keys(text, content="other")
    text = "FROM b AS s\nRUN {}\nFROM a\nRUN --mount=from=s,target=/src x\n"
    assert layer_keys(text.format("1")) != layer_keys(text.format("2"))


def test_a_linked_layer_has_the_same_key_on_any_parent_and_what_follows_has_not():
    linked, after = layer_keys("FROM a\nRUN 1\nCOPY --link x /x\nRUN z\n")[1:]
    other_linked, other_after = layer_keys("FROM a\nRUN 2\nCOPY --link x /x\nRUN z\n")[1:]
    assert linked == other_linked
    assert after != other_after


def test_only_needed_stages_are_named_by_mounts():
    assert set(keys_of("FROM a AS one\nFROM a AS two\nFROM a\nRUN --mount=from=two,target=/t x\n")) == {1, 2}


# Caches


async def test_shared_and_private_caches(tmp_path):
    caches = CacheDirectories(tmp_path, 10**9)
    async with caches.hold(KEY, "shared", lambda _: None) as one, caches.hold(KEY, "shared", lambda _: None) as two:
        assert one == two
        async with caches.hold(KEY, "private", lambda _: None) as three:
            assert three != one
    async with caches.hold(KEY, "private", lambda _: None) as again:
        assert again == one


async def test_a_locked_cache_waits_and_a_cancelled_wait_holds_nothing(tmp_path):
    caches = CacheDirectories(tmp_path, 10**9)
    order: list[str] = []

    async def second() -> None:
        async with caches.hold(KEY, "locked", lambda _: None):
            order.append("second")

    async with caches.hold(KEY, "locked", lambda _: None):
        waiting = asyncio.create_task(second())
        cancelled = asyncio.create_task(second())
        await asyncio.sleep(0)
        cancelled.cancel()
        order.append("first")
    await asyncio.wait_for(waiting, 10)
    assert order == ["first", "second"]
    async with caches.hold(KEY, "locked", lambda _: None):
        pass


async def test_a_cache_that_could_not_be_begun_is_not_there(tmp_path):
    def fails(directory: Path) -> None:
        (directory / "half").touch()
        raise OSError("no")

    caches = CacheDirectories(tmp_path, 10**9)
    with pytest.raises(OSError, match="no"):
        async with caches.hold(KEY, "shared", fails):
            pass
    async with caches.hold(KEY, "shared", lambda _: None) as directory:
        assert list(directory.iterdir()) == []
    assert [path.name for path in directory.parent.iterdir()] == ["files"]


def test_caches_outlive_builds_and_serve_two_at_once(tmp_path, registry, busybox_layout):
    base = f"{registry.host}/{push_base(busybox_layout, registry)}"
    builder = Builder(tmp_path / "home")
    text = f"FROM {base}\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked echo $N >> /c/f; cat /c/f; sleep 0.2\n"
    context = write_files(tmp_path / "context", {"Dockerfile": text})
    started = [
        subprocess.Popen(
            builder.command(context, "--no-push", f"--build-arg=N={n}"),
            env=builder.environ(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in ("one", "two")
    ]
    for process in started:
        assert process.communicate(timeout=100)[0] is None
        assert process.returncode == 0
    told = builder.must(context, "--no-push", "--build-arg=N=three").output
    lines = [line.strip() for line in told.splitlines() if line.strip() in ("one", "two", "three")]
    assert sorted(lines) == ["one", "three", "two"]
    assert lines[-1] == "three"


# Secrets


def test_a_secret_does_not_show_itself():
    assert "hush" not in repr(SecretText("hush"))
    assert "hush" not in repr(StepSecrets(values={"a": SecretText("hush")}))
    assert "hush" not in repr(FileMount("/x", b"hush"))


@pytest.mark.parametrize("rung", ["overlay", "namespaces", "chroot"])
def test_a_secret_is_nowhere_afterwards(tmp_path, registry, busybox_layout, rung):
    base = f"{registry.host}/{push_base(busybox_layout, registry)}"
    secret = "a-very-special-token-7391"
    text = (
        f"FROM {base}\n"
        'RUN --mount=type=secret,id=t --mount=type=secret,id=t,env=T test "$T" = "$(cat /run/secrets/t)" && echo same\n'
        "RUN test ! -e /run/secrets; exit 3\n"
    )
    context = write_files(tmp_path / "context", {"Dockerfile": text})
    builder = Builder(tmp_path / "home", {"TOKEN": secret})
    given = ("--no-push", "--cache", "--secret=id=t,env=TOKEN", f"--isolation={rung}")
    ended = builder.build(context, *given)
    assert ended.status == 3
    assert "    same" in ended.output
    assert secret not in ended.output
    done = subprocess.run(["grep", "-r", secret, builder.home], capture_output=True, check=False)
    assert done.stdout == b""
    # Another value is no other step.
    (tmp_path / "other").write_text("another\n")
    changed = context / "Dockerfile"
    changed.write_text(changed.read_text().replace("; exit 3", ""))
    again = builder.must(context, "--no-push", "--cache", f"--secret=id=t,src={tmp_path}/other", f"--isolation={rung}")
    assert again.outcomes[0] == "CACHED"


# Agents


async def test_an_agent_is_passed_on(tmp_path):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, tmp_path / "agent.sock")
    long = tmp_path / ("d" * 120)
    long.mkdir()
    async with server, forwarded_agent(tmp_path / "agent.sock", long, (3, 4), 0o640) as path:
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (3, 4, 0o640)
        (tmp_path / "short").symlink_to(path.parent)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "short" / "agent")
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.read(), 10) == b"HELLO"
        writer.close()


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="no ssh-agent")
@pytest.mark.parametrize("rung", ["overlay", "chroot"])
def test_a_step_reaches_the_agent_of_the_command_line(tmp_path, registry, busybox_layout, rung):
    base = f"{registry.host}/{push_base(busybox_layout, registry)}"
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        text = (
            f"FROM {base}\n"
            "RUN --mount=type=ssh,required,mode=0666 test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /x\n"
            "RUN test ! -e /run/buildkit && test -z $SSH_AUTH_SOCK\n"
        )
        context = write_files(tmp_path / "context", {"Dockerfile": text})
        Builder(tmp_path / "home").must(context, "--no-push", f"--ssh=default={path}", f"--isolation={rung}")


# What cannot be had


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RUN --network=none true", "--network=none cannot be had here"),
        ("RUN --mount=type=cache,id=i,target=/a --mount=type=cache,id=i,target=/b true", "twice in one step"),
    ],
)
def test_refused_by_plain_chroot(tmp_path, registry, busybox_layout, line, said):
    base = f"{registry.host}/{push_base(busybox_layout, registry)}"
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {base}\n{line}\n"})
    ended = Builder(tmp_path / "home").build(context, "--no-push", "--isolation=chroot")
    assert ended.status == 1
    assert said in ended.output
    assert "Dockerfile:2" in ended.output


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--secret=src=x", "id=NAME is missing"),
        ("--secret=id=x,env=NOT_THERE", "the environment has no NOT_THERE"),
        ("--secret=id=x,src=a,env=PATH", "give src or env"),
        ("--secret=id=x,value=y", "unknown field 'value'"),
        ("--ssh=default", "SSH_AUTH_SOCK is not set"),
        ("--ssh=default=/etc/passwd", "not the socket of an agent"),
        ("--build-context=x", "expected NAME=DIRECTORY"),
        ("--build-context=x=/not/there", "expected a directory"),
        ("--build-context=x=target:base", "target: names a target of a bake file"),
        ("--build-context=x=docker-image://UPPER/../x", "--build-context x"),
    ],
)
def test_flags_that_cannot_be_honoured(tmp_path, flag, said):
    context = write_files(tmp_path / "context", {"Dockerfile": "FROM scratch\n"})
    ended = Builder(tmp_path / "home").build(context, "--no-push", flag)
    assert ended.status == 2
    assert said in ended.output
