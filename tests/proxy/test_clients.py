"""Other people's clients through the proxy: skopeo, podman and buildah, with and without credentials."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.oci.credentials import Credential
from tests.peers import Registry
from tests.proxy.running import UPSTREAM, client_of, make_image, push, run, running_proxy

pytestmark = pytest.mark.peers


async def test_skopeo_pushes_and_pulls_with_credentials(private_registry: Registry, tmp_path: Path):
    creds = f"{private_registry.username}:{private_registry.password}"
    owner = Credential(private_registry.username, private_registry.password)
    image = make_image()
    async with client_of(private_registry.url, owner) as client:
        await push(client, "org/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy:
        source, target = f"docker://{proxy.host}/org/app:1", f"docker://{proxy.host}/org/copy:2"
        flags = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
        await run("skopeo", "copy", *flags, "--src-creds", creds, source, f"dir:{tmp_path}/one")
        await run("skopeo", "copy", *flags, "--dest-creds", creds, f"dir:{tmp_path}/one", target)
        await run("skopeo", "copy", *flags, "--src-creds", creds, target, f"dir:{tmp_path}/two")
        await run("skopeo", "copy", *flags, f"dir:{tmp_path}/one", f"docker://{proxy.host}/cache/steps:2")
        said = await run("skopeo", "copy", *flags, source, f"dir:{tmp_path}/no", status=1)
        assert "authentication required" in said or "nauthorized" in said
        said = await run(
            "skopeo", "copy", *flags, "--src-creds", "crossdock:wrong", source, f"dir:{tmp_path}/no", status=1
        )
        assert "nauthorized" in said or "authentication required" in said
        await run("skopeo", "copy", *flags, "--dest-creds", "a:b", f"dir:{tmp_path}/one", target, status=1)
        inspected = await run("skopeo", "inspect", "--tls-verify=false", "--creds", creds, target)
        assert json.loads(inspected)["Digest"] == str(image.manifest.digest)
    for copy in ("one", "two"):
        assert (tmp_path / copy / "manifest.json").read_bytes() == image.manifest.raw
        assert (tmp_path / copy / image.layer.hex).read_bytes() == image.blobs[image.layer]
    async with client_of(private_registry.url, owner) as client:
        assert (await client.get_manifest("org/copy", "2")).raw == image.manifest.raw


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Storage of its own for podman and buildah; podman wants a short path for what it runs in."""
    with tempfile.TemporaryDirectory(prefix="xd-") as run_root:
        yield ("--root", str(tmp_path / "root"), "--runroot", run_root, "--storage-driver", "vfs")


async def test_podman_and_buildah(private_registry: Registry, tmp_path: Path, storage: tuple[str, ...]):
    creds = f"{private_registry.username}:{private_registry.password}"
    (tmp_path / "hello").write_text("hello\n")
    async with running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy:
        name = f"{proxy.host}/org/app:1"
        container = (await run("buildah", *storage, "from", "scratch")).strip().splitlines()[-1]
        await run("buildah", *storage, "copy", container, str(tmp_path / "hello"), "/hello")
        await run("buildah", *storage, "commit", container, name)
        await run("buildah", *storage, "push", "--tls-verify=false", "--creds", creds, name)
        await run("buildah", *storage, "rm", container)
        await run("buildah", *storage, "rmi", name)
        auth = ("--authfile", str(tmp_path / "auth.json"))
        flags = ("--tls-verify=false", "-u", private_registry.username, "-p", private_registry.password)
        await run("podman", *storage, "login", *auth, *flags, proxy.host)
        await run("podman", *storage, "pull", *auth, "--tls-verify=false", name)
        listed = await run("podman", *storage, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        assert name in listed
        await run("podman", *storage, "rmi", name)
        await run(
            "podman",
            *storage,
            "pull",
            "--tls-verify=false",
            "--authfile",
            str(tmp_path / "none.json"),
            name,
            status=125,
        )
