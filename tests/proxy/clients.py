"""Other people's clients as the tests use them: each pulls and pushes one image, with or without credentials."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.manifest import Manifest, parse_manifest
from tests.debian import MACHINE, push_layout, write_layout
from tests.docker import Docker
from tests.fakes.tokens import start_token_registry
from tests.peers import Registry, start_registry
from tests.programs import write_docker_config
from tests.proxy.running import UPSTREAM, Proxy, client_of, run, run_any, running_proxy

UPSTREAMS = ("open", "basic", "bearer")
CLIENTS = ("skopeo", "podman", "buildah", "docker")
FILE = "hello"
REFUSALS = ("unauthorized", "authentication required", "denied")
"""What the programs say when a registry does not let them in."""


@asynccontextmanager
async def start_upstream(kind: str, tmp: Path) -> AsyncIterator[Registry]:
    """A real registry: for everybody, or for its one user by Basic or by Bearer tokens."""
    if kind == "bearer":
        async with start_token_registry(tmp) as started:
            started.tokens.anonymous_pull = False
            yield dataclasses.replace(started.registry, username=started.username, password=started.password)
    else:
        with start_registry(tmp, htpasswd=kind == "basic") as registry:
            yield registry


@asynccontextmanager
async def upstream_and_proxy(kind: str, tmp: Path) -> AsyncIterator[tuple[Registry, Proxy]]:
    """A registry of this kind with a proxy before it."""
    async with (
        start_upstream(kind, tmp / "registry") as registry,
        running_proxy(tmp, {UPSTREAM: registry.url}) as proxy,
    ):
        yield registry, proxy


def login(directory: Path, host: str, registry: Registry, password: str | None = None) -> Path:
    """A directory with a ``config.json`` for this host: the registry's user, with another password if one is given."""
    directory.mkdir(parents=True, exist_ok=True)
    name = registry.username or "somebody"
    known = bool(registry.username) or password is not None
    logins = {host: f"{name}:{password or registry.password}"} if known else {}
    return write_docker_config(directory, logins)


def make_layout(tmp: Path, architecture: str = MACHINE) -> Path:
    """An OCI layout, tagged ``base``, with one image that nobody has seen before: a single small file."""
    root = tmp / "root"
    root.mkdir(parents=True)
    (root / FILE).write_text(secrets.token_hex(5000))
    write_layout(root, tmp / "layout", architecture=architecture)
    return tmp / "layout"


def layout_manifest(layout: Path) -> Manifest:
    """The manifest of a layout's one image."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    raw = (layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
    parsed = parse_manifest(raw, entry["mediaType"])
    assert isinstance(parsed, Manifest)
    return parsed


async def seed(layout: Path, registry: Registry, name: str) -> None:
    """Puts the layout's image into the registry, without the proxy."""
    credentials = f"{registry.username}:{registry.password}" if registry.username else None
    await asyncio.to_thread(push_layout, layout, f"{registry.host}/{name}", credentials)


async def read_image(registry: Registry, repository: str, tag: str) -> tuple[Digest, dict[str, bytes]]:
    """What the registry itself has there: the manifest's digest and the files of all layers; every blob is checked."""
    owner = Credential(registry.username, registry.password)
    files: dict[str, bytes] = {}
    async with client_of(registry.url, owner) as client:
        reply = await client.get_manifest(repository, tag)
        manifest = parse_manifest(reply.raw, reply.media_type)
        assert isinstance(manifest, Manifest)
        for blob in (manifest.config, *manifest.layers):
            async with client.open_blob(repository, blob.digest) as opened:
                data = b"".join([chunk async for chunk in opened.chunks])
            assert (Digest.of(data), len(data)) == (blob.digest, blob.size)
            if blob != manifest.config:
                files |= _files(data)
    return Digest.of(reply.raw), files


def _files(layer: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        opened = {member.name.removeprefix("./"): tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in opened.items() if file is not None}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Storage of its own for podman and buildah; podman wants a short path for what it runs in."""
    with tempfile.TemporaryDirectory(prefix="xd-") as run_root:
        yield ("--root", str(tmp_path / "storage"), "--runroot", run_root, "--storage-driver", "vfs")


class Client(Protocol):
    """One of the programs. ``config`` is a directory with a docker ``config.json``."""

    async def pull(self, name: str, config: Path) -> str | None:
        """Pulls ``HOST/NAME:TAG``; gives the digest of the manifest that it got, or None when it was refused."""

    async def push(self, layout: Path, name: str, config: Path) -> bool:
        """Pushes the layout's image under this name; False when it was refused."""

    async def forget(self, name: str) -> None:
        """Drops what it holds, so that the next pull is a whole one."""


async def allowed(*command: str) -> bool:
    """Runs a program to its end; False when it says that it was not let in. Fails on every other error."""
    status, said = await run_any(*command)
    refused = status != 0 and any(sign in said for sign in REFUSALS)
    assert refused or status == 0, f"{command} ended with {status}: {said}"
    return not refused


@dataclass(frozen=True)
class Skopeo:
    """Copies between a registry and a directory."""

    directory: Path

    async def pull(self, name: str, config: Path) -> str | None:
        to = self.directory / "pulled"
        flags = ("--src-tls-verify=false", "--preserve-digests", f"--src-authfile={config}/config.json")
        if not await allowed("skopeo", "copy", *flags, f"docker://{name}", f"dir:{to}"):
            return None
        return str(Digest.of((to / "manifest.json").read_bytes()))

    async def push(self, layout: Path, name: str, config: Path) -> bool:
        flags = ("--dest-tls-verify=false", f"--dest-authfile={config}/config.json")
        return await allowed("skopeo", "copy", *flags, f"oci:{layout}:base", f"docker://{name}")

    async def forget(self, name: str) -> None:
        shutil.rmtree(self.directory / "pulled", ignore_errors=True)


@dataclass(frozen=True)
class Containers:
    """podman or buildah, with a storage of its own."""

    program: str
    storage: tuple[str, ...]

    async def pull(self, name: str, config: Path) -> str | None:
        flags = ("--tls-verify=false", f"--authfile={config}/config.json")
        if not await allowed(self.program, *self.storage, "pull", *flags, name):
            return None
        return (await run("podman", *self.storage, "image", "inspect", "--format", "{{.Digest}}", name)).strip()

    async def push(self, layout: Path, name: str, config: Path) -> bool:
        image = (await run(self.program, *self.storage, "pull", "--quiet", f"oci:{layout}:base")).split()[-1]
        flags = ("--tls-verify=false", f"--authfile={config}/config.json")
        return await allowed(self.program, *self.storage, "push", *flags, image, f"docker://{name}")

    async def forget(self, name: str) -> None:
        await run(self.program, *self.storage, "rmi", "--all", "--force")


@dataclass(frozen=True)
class DockerClient:
    """docker, whose daemon does the work."""

    docker: Docker
    directory: Path

    async def pull(self, name: str, config: Path) -> str | None:
        if not await allowed(*self.docker.command("pull", "--quiet", name, config=config)):
            return None
        listed = await run(*self.docker.command("image", "inspect", "--format", "{{index .RepoDigests 0}}", name))
        return listed.strip().partition("@")[2]

    async def push(self, layout: Path, name: str, config: Path) -> bool:
        archive = self.directory / "archive.tar"
        archive.unlink(missing_ok=True)
        await run("skopeo", "copy", "--quiet", f"oci:{layout}:base", f"docker-archive:{archive}:{name}")
        await run(*self.docker.command("load", "--input", str(archive)))
        return await allowed(*self.docker.command("push", "--quiet", name, config=config))

    async def forget(self, name: str) -> None:
        await asyncio.to_thread(self.docker.forget_all)
