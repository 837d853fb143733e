"""Build caches of other people's builders, and of ours, in repositories behind the proxy."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.docker import Docker
from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry
from tests.proxy.running import UPSTREAM, Proxy, run, running_proxy

pytestmark = pytest.mark.peers

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
RUN echo step one > /one
COPY file /two
RUN cat /one /two > /three
"""
CACHES = ("cache/steps", "org/steps")
"""A hosted repository, and one of the upstream."""


@asynccontextmanager
async def ready(tmp: Path, registry: Registry, layout: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy before a registry that has a base image, and a context that builds on it."""
    base = await asyncio.to_thread(push_base, layout, registry)
    context = write_files(tmp / "context", {"Dockerfile": DOCKERFILE, "file": "two\n"})
    async with running_proxy(tmp, {UPSTREAM: registry.url}) as proxy:
        (context / "Dockerfile").write_text(DOCKERFILE.replace("ARG BASE", f"ARG BASE={proxy.host}/{base}"))
        yield proxy, context


@pytest.mark.parametrize("repository", CACHES)
async def test_buildah_keeps_its_steps(repository: str, registry: Registry, busybox_layout: Path, tmp_path: Path):
    async with ready(tmp_path, registry, busybox_layout) as (proxy, context):
        cache = f"{proxy.host}/{repository}"
        flags = ("--layers", f"--cache-to={cache}", f"--cache-from={cache}", "--isolation=chroot", "--tls-verify=false")
        said = []
        for number in range(2):
            with tempfile.TemporaryDirectory(prefix="xd-") as run_root:
                storage = ("--root", str(tmp_path / f"storage-{number}"), "--runroot", run_root)
                said.append(await run("buildah", *storage, "--storage-driver=vfs", "bud", *flags, str(context)))
    assert [text.count("--> Using cache") for text in said] == [0, 3]


async def test_buildkit_finds_its_inline_cache(
    docker: Docker, registry: Registry, busybox_layout: Path, tmp_path: Path
):
    async with ready(tmp_path, registry, busybox_layout) as (proxy, context):
        name = f"{proxy.host}/org/app:1"
        build = docker.command(
            *("build", "--network=none", "--progress=plain", "--build-arg=BUILDKIT_INLINE_CACHE=1"),
            *(f"--cache-from={name}", f"--tag={name}", str(context)),
        )
        first = await run(*build, env={"DOCKER_BUILDKIT": "1"})
        await run(*docker.command("push", "--quiet", name))
        await asyncio.to_thread(docker.forget_all)
        second = await run(*build, env={"DOCKER_BUILDKIT": "1"})
    assert [text.count(" CACHED\n") for text in (first, second)] == [0, 3]


@pytest.mark.parametrize("repository", CACHES)
async def test_crossdock_keeps_its_steps(repository: str, registry: Registry, busybox_layout: Path, tmp_path: Path):
    async with ready(tmp_path, registry, busybox_layout) as (proxy, context):
        flags = ("--cache", f"--cache-repo={proxy.host}/{repository}", f"--insecure-registry={proxy.host}")
        outcomes = [
            (await asyncio.to_thread(Builder(tmp_path / home).must, context, *flags, "--no-push")).outcomes
            for home in ("first", "second")
        ]
    assert "CACHED" not in outcomes[0]
    assert outcomes[1] == ["CACHED"] * 3
