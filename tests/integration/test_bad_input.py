"""Each bad input ends in one paragraph that names the thing and the place, and leaves nothing half-written."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cache.disk.filesystem import FilesystemStore
from cache.oci.digest import Digest
from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry, free_port
from tests.programs import write_docker_config


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "home")


@pytest.fixture
def base(registry: Registry, busybox_layout: Path) -> str:
    return f"{registry.host}/{push_base(busybox_layout, registry)}"


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FROM scratch\nCOPY --lnk a /a\n", ["--lnk", "--link", "Dockerfile:2", "^^^^^"]),
        ("FROM scratch\nCPOY a /a\n", ["CPOY", "COPY", "Dockerfile:2", "^^^^"]),
        ("FROM scratch\nCOPY missing /a\n", ["missing", "Dockerfile:2"]),
        ("FROM scratch\nCOPY ../../outside /a\n", ["outside", "Dockerfile:2"]),
        ("FROM scratch\nCOPY link-out /a\n", ["link-out", "Dockerfile:2"]),
        ("FROM scratch\nCOPY a a /file\n", ["/file", "Dockerfile:2"]),
        ("FROM scratch\nRUN <<EOF\ntrue\n", ["'EOF'", "Dockerfile:2", "^^^^^"]),
        ("RUN before\n", ["Dockerfile:1"]),
        ("", ["Dockerfile"]),
    ],
)
def test_a_dockerfile_that_cannot_be_built(tmp_path, builder, dockerfile, said):
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile, "a": "a\n"})
    (tmp_path / "outside").write_text("secret\n")
    (context / "link-out").symlink_to("../outside")
    ended = builder.build(context, "--no-push", f"--oci-layout-path={tmp_path}/layout")
    assert ended.status == 1
    assert ended.output.startswith("error: ") or "\nerror: " in ended.output
    for part in said:
        assert part in ended.output
    assert not (tmp_path / "layout").exists()


def test_a_base_that_does_not_exist(tmp_path, builder, registry):
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {registry.host}/no/such:tag\n"})
    ended = builder.build(context, "--no-push")
    assert ended.status == 1
    assert f"cannot use the base image {registry.host}/no/such:tag" in ended.output
    assert "404" in ended.output
    assert "Dockerfile:1" in ended.output


def test_a_registry_that_is_down(tmp_path, builder):
    host = f"127.0.0.1:{free_port()}"
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {host}/base:1\n"})
    ended = builder.build(context, "--no-push")
    assert ended.status == 1
    assert host in ended.output
    assert "connect" in ended.output.lower()


def test_a_refused_password_is_told_before_anything_is_built(tmp_path, base, private_registry):
    config = write_docker_config(tmp_path / "docker", {private_registry.host: "crossdock:wrong-password"})
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {base}\nRUN echo ran\n"})
    ended = Builder(tmp_path / "home", {"DOCKER_CONFIG": str(config)}).build(
        context, f"--destination={private_registry.host}/app:1"
    )
    assert ended.status == 1
    assert f"cannot push to {private_registry.host}/app:1" in ended.output
    assert "wrong-password" not in ended.output
    assert "    ran" not in ended.output


def test_a_failed_command_gives_its_own_exit_code(tmp_path, builder, base, registry):
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {base}\nRUN echo said; exit 42\n"})
    ended = builder.build(context, f"--destination={registry.host}/app:1")
    assert ended.status == 42
    assert "    said" in ended.output
    assert "exit code 42" in ended.output
    assert "Dockerfile:2" in ended.output
    assert registry.count("PUT", "/v2/app/manifests/") == 0


def test_a_base_layer_with_a_wrong_digest(tmp_path, builder, base, registry):
    blobs = tmp_path / "registry" / "data" / "docker/registry/v2/blobs/sha256"
    largest = max(blobs.rglob("data"), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    largest.write_bytes(damaged)
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {base}\nRUN echo ran\n"})
    ended = builder.build(context, "--no-push")
    assert ended.status == 1
    assert largest.parent.name in ended.output
    assert "    ran" not in ended.output


@pytest.mark.parametrize("flag", ["--state-dir", "--oci-layout-path", "--tar-path", "--digest-file"])
def test_a_path_that_cannot_be_written(tmp_path, builder, flag):
    (tmp_path / "file").write_text("")
    context = write_files(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    ended = builder.build(context, "--no-push", f"{flag}={tmp_path}/file/below")
    assert ended.status == 1
    assert f"{tmp_path}/file/below" in ended.output


@pytest.mark.parametrize("size", ["64k", "2m", "6m"])
def test_a_full_disk(tmp_path, builder, base, size):
    """Room for nothing, for the base's blob but not its files, for the base but not for what a step writes."""
    small = tmp_path / "small"
    small.mkdir()
    context = write_files(
        tmp_path / "context", {"Dockerfile": f"FROM {base}\nRUN dd if=/dev/urandom of=/big bs=1024 count=5000\n"}
    )
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)
    try:
        ended = builder.build(context, "--no-push", f"--state-dir={small}/state", f"--tar-path={tmp_path}/image.tar")
        assert ended.status == 1
        assert "space" in ended.output.lower()
        assert not list((small / "state" / "work").iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert not (tmp_path / "image.tar").exists()


def test_steps_before_a_failed_one_are_cached(tmp_path, builder, base):
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {base}\nRUN echo fine > /f\nRUN exit 3\n"})
    assert builder.build(context, "--no-push", "--cache").status == 3
    assert builder.build(context, "--no-push", "--cache").outcomes == ["CACHED"]


def test_a_broken_docker_config_is_named(tmp_path):
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"auths": {"a": {"auth": "c2VjcmV0')
    context = write_files(tmp_path / "context", {"Dockerfile": "FROM scratch\n"})
    ended = Builder(tmp_path / "home", {"DOCKER_CONFIG": f"{tmp_path}/docker"}).build(context, "--no-push")
    assert ended.status == 1
    assert f"{tmp_path}/docker/config.json" in ended.output
    assert "c2VjcmV0" not in ended.output


async def test_a_build_killed_at_any_moment_leaves_only_what_the_next_one_removes(tmp_path, builder, base):
    dockerfile = f"FROM {base}\n" + "".join(f"RUN dd if=/dev/zero of=/f{n} bs=1024 count=2000\n" for n in range(6))
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile})
    given = (context, "--no-push", "--cache")
    finished = 0
    for delay_s in (0.15, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        process = subprocess.Popen(
            builder.command(*given), env=builder.environ(), stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(delay_s)
        finished += process.poll() is not None
        process.kill()
        process.wait()
    assert finished < 8
    assert builder.must(*given).outcomes
    assert set(builder.must(*given).outcomes) == {"CACHED"}

    state = builder.home / ".cache/crossdock/build"
    assert list((state / "work").iterdir()) == []
    store = FilesystemStore(state / "store")
    found = [digest async for digest, _ in store.blobs()]
    for digest in found:
        path = store.local_path(digest)
        assert path is not None
        assert Digest.of(path.read_bytes()) == digest
    await store.close()
    assert len(found) >= 6
