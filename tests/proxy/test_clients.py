"""Other people's clients through the proxy, each in both directions, in front of registries of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.oci.errors import NotFound
from tests.docker import Docker
from tests.peers import Registry, Request
from tests.proxy.clients import (
    CLIENTS,
    FILE,
    UPSTREAMS,
    Client,
    Containers,
    DockerClient,
    Skopeo,
    layout_manifest,
    login,
    make_layout,
    read_image,
    seed,
    upstream_and_proxy,
)
from tests.proxy.running import run

pytestmark = pytest.mark.peers


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path: Path, storage: tuple[str, ...]) -> Client:
    match request.param:
        case "skopeo":
            return Skopeo(tmp_path)
        case "docker":
            return DockerClient(request.getfixturevalue("docker"), tmp_path)
        case program:
            return Containers(program, storage)


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_each_pulls_and_the_upstream_gives_each_blob_once(client: Client, kind: str, tmp_path: Path):
    layout = make_layout(tmp_path)
    manifest = layout_manifest(layout)
    async with upstream_and_proxy(kind, tmp_path) as (registry, proxy):
        await seed(layout, registry, "org/app:1")
        config = login(tmp_path / "config", proxy.host, registry)
        name = f"{proxy.host}/org/app:1"
        for _ in range(2):
            assert await client.pull(name, config) == str(manifest.digest)
            await client.forget(name)
        given = [request.path.rpartition("/")[2] for request in registry.requests() if gives_blob(request)]
        assert sorted(given) == sorted(str(blob.digest) for blob in (manifest.config, *manifest.layers))


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_each_pushes_and_the_upstream_has_it(client: Client, kind: str, tmp_path: Path):
    layout = make_layout(tmp_path)
    async with upstream_and_proxy(kind, tmp_path) as (registry, proxy):
        config = login(tmp_path / "config", proxy.host, registry)
        name = f"{proxy.host}/org/app:1"
        assert await client.push(layout, name, config)
        await client.forget(name)
        digest, files = await read_image(registry, "org/app", "1")
        assert files == {FILE: (tmp_path / "root" / FILE).read_bytes()}
        assert await client.pull(name, config) == str(digest)
        given = sum(gives_blob(request) for request in registry.requests())
        assert given == 2  # to read_image: what came by is held


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_each_is_refused_as_the_upstream_refuses(client: Client, kind: str, tmp_path: Path):
    layout = make_layout(tmp_path)
    async with upstream_and_proxy(kind, tmp_path) as (registry, proxy):
        await seed(layout, registry, "org/app:1")
        name, pushed = f"{proxy.host}/org/app:1", f"{proxy.host}/org/app:2"
        await client.pull(name, login(tmp_path / "right", proxy.host, registry))
        await client.forget(name)
        nobody = login(tmp_path / "nobody", "elsewhere.test", registry)
        wrong = login(tmp_path / "wrong", proxy.host, registry, "guessed")
        for config in (nobody, wrong):
            assert await client.pull(name, config) is None
            assert not await client.push(layout, pushed, config)
            await client.forget(pushed)
        with pytest.raises(NotFound):
            await read_image(registry, "org/app", "2")


async def test_who_has_logged_in_is_known(docker: Docker, storage: tuple[str, ...], tmp_path: Path):
    layout = make_layout(tmp_path)
    digest = str(layout_manifest(layout).digest)
    config = tmp_path / "config"
    async with upstream_and_proxy("bearer", tmp_path) as (registry, proxy):
        await seed(layout, registry, "org/app:1")
        name, who = f"{proxy.host}/org/app:1", ("-u", registry.username, "-p", registry.password)
        await run("podman", "login", f"--authfile={config}/config.json", "--tls-verify=false", *who, proxy.host)
        assert await Containers("podman", storage).pull(name, config) == digest
        await run(*docker.command("login", *who, proxy.host, config=tmp_path / "docker"))
        assert await DockerClient(docker, tmp_path).pull(name, tmp_path / "docker") == digest


async def test_who_is_nobody_pushes_to_hosted_repositories(client: Client, tmp_path: Path):
    layout = make_layout(tmp_path)
    async with upstream_and_proxy("basic", tmp_path) as (registry, proxy):
        nobody = login(tmp_path / "nobody", "elsewhere.test", registry)
        assert await client.push(layout, f"{proxy.host}/cache/app:1", nobody)
        _, files = await read_image(Registry(proxy.url, proxy.host, tmp_path), "cache/app", "1")
        assert files == {FILE: (tmp_path / "root" / FILE).read_bytes()}


def gives_blob(request: Request) -> bool:
    return request.method == "GET" and "/blobs/" in request.path and request.status == 200
