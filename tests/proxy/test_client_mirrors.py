"""The proxy as a mirror in other people's configuration, and images for several platforms through it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cache.oci import media_types
from cache.oci.manifest import Manifest
from cache.oci.reference import DOCKER_HUB
from tests.docker import Docker
from tests.peers import Registry
from tests.proxy.clients import DockerClient, layout_manifest, make_layout, seed
from tests.proxy.running import UPSTREAM, Proxy, client_of, run, running_proxy

pytestmark = pytest.mark.peers

PLATFORMS = ("amd64", "arm64")


@asynccontextmanager
async def mirror_of_hub(tmp: Path, registry: Registry) -> AsyncIterator[Proxy]:
    """A proxy for whom ``registry`` is Docker Hub, and another one."""
    async with running_proxy(tmp, {DOCKER_HUB: registry.url, UPSTREAM: registry.url}) as proxy:
        yield proxy


async def test_docker_has_it_as_mirror_of_docker_hub(docker: Docker, registry: Registry, tmp_path: Path):
    name = f"image-{secrets.token_hex(8)}"
    layout = make_layout(tmp_path)
    await seed(layout, registry, f"library/{name}:1")
    async with mirror_of_hub(tmp_path, registry) as proxy:
        docker.use_mirrors(proxy.url)
        try:
            pulled = await DockerClient(docker, tmp_path).pull(f"{name}:1", tmp_path / "nobody")
        finally:
            docker.use_mirrors()
    assert pulled == str(layout_manifest(layout).digest)


@pytest.mark.parametrize("repository", ["docker.io/library/{}", f"{UPSTREAM}/org/{{}}"])
async def test_podman_and_skopeo_have_it_in_registries_conf(
    repository: str, registry: Registry, storage: tuple[str, ...], tmp_path: Path
):
    name = repository.format(f"image-{secrets.token_hex(8)}")
    layout = make_layout(tmp_path)
    host, _, path = name.partition("/")
    await seed(layout, registry, f"{path}:1")
    async with mirror_of_hub(tmp_path, registry) as proxy:
        conf = str(write_registries_conf(tmp_path, host, proxy.host))
        await run("podman", *storage, "pull", f"{name}:1", env={"CONTAINERS_REGISTRIES_CONF": conf})
        listed = await run("podman", *storage, "image", "inspect", "--format", "{{.Digest}}", f"{name}:1")
        await run("skopeo", "--registries-conf", conf, "copy", f"docker://{name}:1", f"dir:{tmp_path}/pulled")
    assert listed.strip() == str(layout_manifest(layout).digest)
    assert (tmp_path / "pulled" / "manifest.json").read_bytes() == layout_manifest(layout).raw


def write_registries_conf(directory: Path, host: str, proxy: str) -> Path:
    """Says that what is of ``host`` is asked of the proxy, under the host's name."""
    conf = directory / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{proxy}/{host}"\ninsecure = true\n'
    conf.write_text(f'[[registry]]\nprefix = "{host}"\nlocation = "{host}"\n{mirror}')
    return conf


async def push_index(registry: Registry, tmp: Path) -> dict[str, Manifest]:
    """An image for several platforms as ``org/multi:1``; gives its manifests by architecture."""
    manifests = {}
    for architecture in PLATFORMS:
        layout = make_layout(tmp / architecture, architecture)
        await seed(layout, registry, f"org/multi:{architecture}")
        manifests[architecture] = layout_manifest(layout)
    entries = [
        {
            "mediaType": manifest.media_type,
            "digest": str(manifest.digest),
            "size": len(manifest.raw),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, manifest in manifests.items()
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}).encode()
    async with client_of(registry.url) as client:
        await client.put_manifest("org/multi", "1", raw, media_types.OCI_INDEX)
    return manifests


@pytest.mark.parametrize("architecture", PLATFORMS)
@pytest.mark.parametrize("program", ["docker", "podman", "buildah"])
async def test_only_the_platform_that_is_wanted_is_fetched(
    program: str, architecture: str, registry: Registry, storage: tuple[str, ...], tmp_path: Path, docker: Docker
):
    manifests = await push_index(registry, tmp_path)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        name = f"{proxy.host}/org/multi:1"
        wanted = f"--platform=linux/{architecture}"
        if program == "docker":
            await run(*docker.command("pull", "--quiet", wanted, name))
            got = await run(*docker.command("image", "inspect", "--format", "{{.Architecture}}", name))
        else:
            await run(program, *storage, "pull", "--quiet", "--tls-verify=false", wanted, name)
            got = await run("podman", *storage, "image", "inspect", "--format", "{{.Architecture}}", name)
    assert got.strip() == architecture
    fetched = {request.path.rpartition("/")[2] for request in registry.requests() if request.method == "GET"}
    for built_for, manifest in manifests.items():
        blobs = {str(blob.digest) for blob in (manifest.config, *manifest.layers)}
        assert blobs & fetched == (blobs if built_for == architecture else set())
