"""Warming, from the Dockerfile to a proxy that serves without its upstream; and where registries are."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cache.disk.filesystem import FilesystemStore
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.config import ContainerConfig
from cache.oci.credentials import Credential, DockerConfig
from cache.oci.errors import NotFound, Unreachable
from cache.oci.reference import Reference
from cache.oci.registries import Registries, base_url
from cache.oci.registry_options import RegistryOptions
from cache.oci.transport import Transport
from tests.builder.servers import Web, serving
from tests.fakes.faulty import scripted_upstream
from tests.peers import free_port
from tests.proxy.running import client_of, get, make_image, push, running_proxy

ROOT = Path(__file__).parents[2]
PLATFORMS = (("amd64", 11), ("arm64", 12))


async def crossdock_warm(*arguments: str, status: int = 0, **environ: str) -> tuple[str, str]:
    """Runs the command as people do; what it says and what it complains of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "crossdock.py"),
        "warm",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
    )
    said, complained = await process.communicate()
    assert process.returncode == status, complained.decode()
    assert b"Traceback" not in complained
    return said.decode(), complained.decode()


async def push_index(client: RegistryClient, repository: str, tag: str) -> bytes:
    """An image for two platforms, one of which nobody will have asked for."""
    described = []
    for architecture, seed in PLATFORMS:
        image = make_image(seed, 100_000)
        await push(client, repository, str(image.manifest.digest), image)
        platform = {"os": "linux", "architecture": architecture}
        entry = {"mediaType": media_types.OCI_MANIFEST, "digest": str(image.manifest.digest)}
        described.append({**entry, "size": len(image.manifest.raw), "platform": platform})
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": described}).encode()
    await client.put_manifest(repository, tag, raw, media_types.OCI_INDEX)
    return raw


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("insecure.test:5000", "http://insecure.test:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
    ],
)
def test_where_a_registry_is(host, expected):
    assert base_url(host, {"insecure.test:5000"}) == expected


def registries(transport, mirrors):
    return Registries(transport, DockerConfig(), RegistryOptions(mirrors={"127.0.0.1:1": tuple(mirrors)}))


async def test_mirrors_come_first_and_are_passed_over_when_they_fail(registry):
    image = make_image()
    down = f"127.0.0.1:{free_port()}"
    async with client_of(registry.url) as client, Transport() as transport:
        await push(client, "mirrored/team/app", "1", image)
        reference = Reference("127.0.0.1:1", "team/app", "1")
        found = registries(transport, [down, registry.host, f"{registry.host}/mirrored"])
        used, repository, reply = await found.resolve_manifest(reference)
    assert (used.base_url, repository, reply.raw) == (registry.url, "mirrored/team/app", image.manifest.raw)


async def test_the_registry_itself_has_the_last_word(registry):
    async with Transport() as transport:
        missing = Registries(
            transport, DockerConfig(), RegistryOptions(mirrors={registry.host: (f"127.0.0.1:{free_port()}",)})
        )
        with pytest.raises(NotFound) as caught:
            await missing.resolve_manifest(Reference(registry.host, "team/app", "1"))
        assert "mirror 127.0.0.1" in caught.value.__notes__[0]
        with pytest.raises(Unreachable):
            await registries(transport, [])._client("127.0.0.1:1", "", mirror=True).ping()


async def test_a_registry_that_has_mirrors_may_be_left_alone(registry):
    mirror = f"127.0.0.1:{free_port()}"
    options = RegistryOptions(mirrors={registry.host: (mirror,)}, fallback=False)
    async with client_of(registry.url) as client, Transport() as transport:
        await push(client, "team/app", "1", make_image())
        found = Registries(transport, DockerConfig(), options)
        with pytest.raises(Unreachable, match=mirror):
            await found.resolve_manifest(Reference(registry.host, "team/app", "1"))
        found = Registries(transport, DockerConfig(), replace(options, mirrors={"other.test": (mirror,)}))
        await found.resolve_manifest(Reference(registry.host, "team/app", "1"))


async def test_one_client_per_registry_and_credential():
    config = DockerConfig(auths={"r.test": Credential("all", "1"), "r.test/team": Credential("team", "2")})
    async with Transport() as transport:
        found = Registries(transport, config)
        assert found.client("r.test", "a") is found.client("r.test", "b")
        assert found.client("r.test", "team/a").credential.username == "team"


async def test_through_a_proxy(registry, tmp_path):
    async with client_of(registry.url) as client, running_proxy(tmp_path, {"up.test:5000": registry.url}) as proxy:
        index = await push_index(client, "team/base", "1")
        dockerfile = tmp_path / "Dockerfile"
        dockerfile.write_text("ARG V\nFROM up.test:5000/team/base:$V\n")
        arguments = ("--proxy", proxy.url, "--platform", "linux/amd64", "--dockerfile", str(dockerfile))
        said, _ = await crossdock_warm(*arguments, "--build-arg", "V=1")
        assert said.startswith("warmed up.test:5000/team/base:1: 2 blobs, 0 held already, 0.1 MB")
        before = registry.count("GET")
        image = make_image(PLATFORMS[0][1], 100_000)
        for name, data in ((f"blobs/{image.layer}", image.blobs[image.layer]), ("manifests/1", index)):
            status, headers, body = await get(f"{proxy.url}/v2/team/base/{name}?ns=up.test:5000")
            assert (status, headers["X-Cache"], body) == (200, "hit", data)
        assert registry.count("GET") == before
        other = make_image(PLATFORMS[1][1], 100_000)
        assert registry.count("GET", str(other.layer)) == 0


async def test_warming_leaves_the_rest_of_a_rate_limit_to_others(tmp_path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {"up.test": upstream.url}) as proxy:
        upstream.manifests = {tag: make_image(1).manifest.raw for tag in ("1", "2")}
        upstream.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "10;w=21600"}
        assert (await get(f"{proxy.url}/v2/team/base/manifests/1"))[0] == 200
        _, complaint = await crossdock_warm("--proxy", proxy.url, "up.test/team/base:2", status=1)
        assert "kept for those who wait" in complaint
        assert upstream.count("GET", "/manifests/2") == 0


async def test_into_a_store_that_a_proxy_then_serves(registry, tmp_path):
    store = tmp_path / "store"
    async with client_of(registry.url) as client:
        index = await push_index(client, "team/base", "1")
    arguments = ("--store", f"file://{store}", "--platform", "linux/arm64", f"{registry.host}/team/base:1")
    said, _ = await crossdock_warm(*arguments)
    assert "2 blobs, 0 held already, 0.1 MB" in said
    said, _ = await crossdock_warm(*arguments)
    assert "2 blobs, 2 held already, 0.0 MB" in said
    before = registry.count("GET", "/team/base/")
    async with running_proxy(tmp_path, {registry.host: registry.url}, store=FilesystemStore(store)) as proxy:
        warmed = make_image(PLATFORMS[1][1], 100_000)
        for path, data in (
            ("manifests/1", index),
            (f"manifests/{warmed.manifest.digest}", warmed.manifest.raw),
            *((f"blobs/{digest}", blob) for digest, blob in warmed.blobs.items()),
        ):
            status, headers, body = await get(f"{proxy.url}/v2/team/base/{path}")
            assert (status, headers["X-Cache"], body) == (200, "hit", data)
    # The proxy asks by HEAD whether this client may read; not a byte of content is fetched.
    assert registry.count("GET", "/team/base/") == before


async def test_the_dockerfile_at_a_url(registry, tmp_path):
    async with client_of(registry.url) as client:
        await push(client, "team/app", "1", make_image())
    with serving(Web()) as web:
        url = web.answer("/Dockerfile", (200, {}, f"FROM {registry.host}/team/app:1\n".encode()))
        said, _ = await crossdock_warm("-d", url, "-c", str(tmp_path / "cache"), "-f", "--cache-ttl=6h")
        assert said.startswith(f"warmed {registry.host}/team/app:1: 2 blobs")
        _, complained = await crossdock_warm(f"-d={web.url}/none?key=s3cret", "-c", str(tmp_path / "cache"), status=1)
    assert f"{web.url}/none" in complained
    assert "404" in complained
    assert "s3cret" not in complained


async def test_the_images_that_triggers_name(registry, tmp_path):
    """Those of images that a Dockerfile starts from; no build on an image that is named by itself is known of."""
    trigger = ContainerConfig(on_build=(f"COPY --from={registry.host}/team/tools:1 /a /a", "RUN true"))
    missing = ContainerConfig(on_build=(f"COPY --from={registry.host}/no/such:1 /a /a",))
    async with client_of(registry.url) as client:
        await push(client, "team/base", "1", make_image(1, container=trigger))
        await push(client, "team/base", "2", make_image(1, container=missing))
        await push(client, "team/tools", "1", make_image(2, container=missing))
    dockerfile, store = tmp_path / "Dockerfile", f"--store=file://{tmp_path}/store"
    for base, tools, status in (("1", ["team/tools:1"], 0), ("2", [], 1)):
        dockerfile.write_text(f"FROM {registry.host}/team/base:{base}\n")
        said, complained = await crossdock_warm(store, f"--dockerfile={dockerfile}", status=status)
        names = [line.removeprefix(f"warmed {registry.host}/").partition(": ")[0] for line in said.splitlines()]
        assert names == [f"team/base:{base}", *tools]
        assert complained.endswith("1 of 2 images could not be warmed\n" if status else "")
    said, _ = await crossdock_warm(store, f"{registry.host}/team/base:1")
    assert said.count("warmed") == 1
    dockerfile.write_text(f"FROM {registry.host}/team/base:1\n")
    async with running_proxy(tmp_path / "proxy", {registry.host: registry.url}) as proxy:
        said, _ = await crossdock_warm("--proxy", proxy.url, f"--dockerfile={dockerfile}")
    assert said.count("warmed") == 2


async def test_a_private_image_is_warmed_with_the_credential_of_config_json(private_registry, tmp_path):
    image = make_image()
    config = {
        "auths": {private_registry.host: {"username": private_registry.username, "password": private_registry.password}}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    credential = Credential(private_registry.username, private_registry.password)
    name = f"{private_registry.host}/team/app:1"
    async with (
        client_of(private_registry.url, credential) as client,
        running_proxy(tmp_path / "proxy", {private_registry.host: private_registry.url}) as proxy,
    ):
        await push(client, "team/app", "1", image)
        for target in (("--store", f"file://{tmp_path}/store"), ("--proxy", proxy.host)):
            said, _ = await crossdock_warm(*target, name, DOCKER_CONFIG=str(tmp_path))
            assert said.startswith(f"warmed {name}: 2 blobs")
            _, complained = await crossdock_warm(*target, name, status=1)
            assert "401" in complained
    held = FilesystemStore(tmp_path / "store")
    assert await held.stat(image.layer) == 300_000
    await held.close()


async def test_every_image_is_tried_and_a_failure_is_reported(registry, tmp_path):
    down = f"127.0.0.1:{free_port()}"
    async with client_of(registry.url) as client:
        await push(client, "team/app", "1", make_image())
    good, missing, lost = f"{registry.host}/team/app:1", f"{registry.host}/no/such:1", f"{down}/a:1"
    said, complained = await crossdock_warm("--store", f"file://{tmp_path}/store", lost, missing, good, status=1)
    assert said.startswith(f"warmed {good}: ")
    assert f"error: {missing}: " in complained
    assert "MANIFEST_UNKNOWN" in complained
    assert f"error: {lost}: " in complained
    assert "cannot connect" in complained
    assert complained.endswith("2 of 3 images could not be warmed\n")


async def test_a_platform_that_the_image_has_not(registry, tmp_path):
    async with client_of(registry.url) as client:
        await push_index(client, "team/base", "1")
    arguments = ("--store", f"file://{tmp_path}/store", "--platform", "linux/s390x", f"{registry.host}/team/base:1")
    _, complained = await crossdock_warm(*arguments, status=1)
    assert "no manifest for linux/s390x" in complained
    assert "linux/amd64, linux/arm64" in complained


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (["alpine"], "either --proxy or --store or --cache-dir", 2),
        (["--proxy", "a", "--store", "memory:", "alpine"], "either --proxy or --store", 2),
        (["--store", "memory:"], "name an image", 2),
        (["--store", "/a/path", "alpine"], "is a path and not a store's URL", 2),
        (["--proxy", "ftp://a", "alpine"], "expected HOST:PORT", 2),
        (["--proxy", "http://a/path", "alpine"], "without a path", 2),
        (["--store", "memory:", "Not An Image"], "invalid image reference", 2),
        (["--store", "memory:", "--platform", "linux", "alpine"], "is not a platform", 2),
        (["--store", "memory:", "--dockerfile", "/no/such/file"], "/no/such/file", 1),
        (["--store", "memory:", "--build-arg", "X", "alpine"], "--build-arg X", 2),
        (["--store", "memory:", "--nonsense"], "--nonsense", 2),
        (["--store", "file:///proc/no/such", "alpine"], "store file:///proc/no/such failed", 1),
    ],
)
async def test_bad_input(arguments, says, status):
    _, complained = await crossdock_warm(*arguments, status=status)
    assert says in complained
