"""Clients of a cluster that is being killed: our own, skopeo, podman and our builder.

Each pushes until that is acknowledged, and pulls what was. What a client meets when its replica dies is counted; what
it must never meet (content that was acknowledged and is not there, bytes that are not the right ones) is an error.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from cache.oci.client import RegistryClient
from cache.oci.digest import Digest
from cache.oci.errors import NotFound, OCIError
from cache.oci.manifest import Manifest, parse_manifest
from tests.programs import CROSSDOCK
from tests.proxy.clients import make_layout
from tests.proxy.running import client_of, make_image, push

BROKEN = (OCIError, aiohttp.ClientError, OSError, TimeoutError)
"""What our client meets when its replica dies; it tries again."""
TURN_S = 30.0
PROGRAM_S = 90.0
WRONG = re.compile(r"manifest[ _]unknown|blob[ _]unknown|does not match|mismatch|Traceback", re.IGNORECASE)
"""What a program says of content that is not there, or not the right one. An upload is not content."""
SKOPEO = ("skopeo", "--insecure-policy", "copy")
BASE = ("base/busybox", "1")
DOCKERFILE = "ARG BASE\nFROM $BASE\nCOPY data /data\nRUN wc -c /data > /count\n"

Name = tuple[str, str]
"""A repository and a tag."""


@dataclass
class Load:
    """What clients do, and what they were told."""

    url: str
    tmp: Path
    chance: random.Random
    upstream: dict[Name, Digest]
    pushed: dict[Name, Digest] = field(default_factory=dict)
    deleted: set[Name] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    broke: dict[str, str] = field(default_factory=dict)
    """What each program said when it last broke."""
    _numbers: int = 0

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[what]} {what}" for what in sorted(self.counts))
        return "\n".join([counts, *(f"last of {what} broken: {said}" for what, said in self.broke.items())])

    def number(self) -> str:
        """A tag that nobody has used yet."""
        self._numbers += 1
        return f"{self._numbers}"

    def acknowledged(self, repository: str) -> list[Name]:
        """The tags of this repository whose pushes were acknowledged."""
        return [name for name in self.pushed if name[0] == repository]

    async def try_once(self, what: str, work: Callable[[RegistryClient], Awaitable[None]]) -> bool:
        """Whether it was acknowledged. A new connection each time: the balancer chooses anew."""
        try:
            async with asyncio.timeout(TURN_S), client_of(self.url) as client:
                await work(client)
        except BROKEN:
            self.counts[f"{what} broken"] += 1
            return False
        self.counts[what] += 1
        return True

    async def push(self) -> None:
        """Pushes a new image until that is acknowledged."""
        name = ("cache/app", self.number())
        image = make_image(1000 + self._numbers, self.chance.randint(1_000, 3_000_000))
        while not await self.try_once("pushes", lambda client: push(client, *name, image)):
            await asyncio.sleep(0.05)
        self.pushed[name] = Digest.of(image.manifest.raw)

    async def pull(self) -> None:
        """Pulls an image that was acknowledged, or one of the upstream."""
        own = self.acknowledged("cache/app")
        known, what = (
            (self.pushed, "pulls") if own and self.chance.random() < 0.6 else (self.upstream, "upstream pulls")
        )
        name = self.chance.choice(own if known is self.pushed else list(known))
        digest = known[name]

        async def whole(client: RegistryClient) -> None:
            try:
                await check(client, name, digest)
            except NotFound as error:
                if name in known:  # and not deleted meanwhile
                    raise AssertionError(f"{name} was acknowledged: {error}") from error

        await self.try_once(what, whole)

    async def delete(self) -> None:
        """Deletes the tag of an image until that is acknowledged."""
        own = self.acknowledged("cache/app")
        if len(own) < 2:
            return await asyncio.sleep(0.05)
        name = self.chance.choice(own)
        del self.pushed[name]

        async def untag(client: RegistryClient) -> None:
            try:
                await client.delete_tag(*name)
            except NotFound:
                self.counts["deletions done before"] += 1  # acknowledged by one that died before it could say so

        while not await self.try_once("deletions", untag):
            await asyncio.sleep(0.05)
        self.deleted.add(name)

    # Other programs

    async def run(self, what: str, *command: str) -> str | None:
        """What a program has said; None when it has failed. Raises AssertionError for what no client may meet."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(self.tmp)},
        )
        killer = asyncio.get_running_loop().call_later(PROGRAM_S, process.kill)
        try:
            said = (await process.communicate())[0].decode(errors="replace")
        finally:
            killer.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert not WRONG.search(said), f"{command}: {said}"
        if process.returncode != 0:
            self.counts[f"{what} broken"] += 1
            self.broke[what] = f"{process.returncode}: {said[-500:]}"
            return None
        self.counts[what] += 1
        return said

    async def run_until_done(self, what: str, *command: str) -> str:
        """What a program says when it has done its work at last."""
        while (said := await self.run(what, *command)) is None:
            await asyncio.sleep(0.05)
        return said

    def image_of(self, name: Name) -> str:
        """An image as programs name it."""
        return f"docker://{self.host}/{name[0]}:{name[1]}"

    async def skopeo(self) -> None:
        """skopeo pushes an image, and pulls one."""
        with tempfile.TemporaryDirectory(dir=self.tmp) as directory:
            layout, name = make_layout(Path(directory)), ("cache/skopeo", self.number())
            pushing = ("--dest-tls-verify=false", f"--digestfile={directory}/digest", f"oci:{layout}:base")
            await self.run_until_done("skopeo pushes", *SKOPEO, *pushing, self.image_of(name))
            self.pushed[name] = Digest.parse(Path(directory, "digest").read_text())
            pulled = self.image_of(self.chance.choice(self.acknowledged("cache/skopeo")))
            await self.run("skopeo pulls", *SKOPEO, "--src-tls-verify=false", pulled, f"dir:{directory}/pulled")

    async def podman(self) -> None:
        """podman pushes an image, and pulls one."""
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="pod-", suffix="x") as directory:  # podman is choosy
            layout, name = make_layout(Path(directory)), ("cache/podman", self.number())
            podman = ("podman", f"--root={directory}/all", f"--runroot={directory}/run", "--storage-driver=vfs")
            loaded = await self.run("podman loads", *podman, "pull", "-q", f"oci:{layout}:base")
            if loaded is None:
                return  # nothing of ours has had a part in it
            pushing = ("push", "--tls-verify=false", f"--digestfile={directory}/digest", loaded.split()[-1])
            await self.run_until_done("podman pushes", *podman, *pushing, self.image_of(name))
            self.pushed[name] = Digest.parse(Path(directory, "digest").read_text())
            await self.run("podman forgets", *podman, "rmi", "--all", "--force")
            pulled = self.image_of(self.chance.choice(self.acknowledged("cache/podman")))
            await self.run("podman pulls", *podman, "pull", "--tls-verify=false", pulled)

    async def builder(self) -> None:
        """Our builder builds on the upstream's base, twice, with the cluster as its cache; and pushes both images."""
        with tempfile.TemporaryDirectory(dir=self.tmp) as directory:
            context = Path(directory, "context")
            context.mkdir()
            (context / "Dockerfile").write_text(DOCKERFILE)
            (context / "data").write_bytes(self.chance.randbytes(100_000))
            for turn in ("first", "second"):
                name = ("cache/built", self.number())
                said = await self.run_until_done(
                    f"{turn} builds",
                    *(*CROSSDOCK, "build", f"--context={context}", f"--insecure-registry={self.host}", "--cache"),
                    *(f"--build-arg=BASE={self.host}/{BASE[0]}:{BASE[1]}", f"--cache-repo={self.host}/cache/steps"),
                    *(f"--destination={self.image_of(name).removeprefix('docker://')}", "--progress=plain"),
                    *(f"--digest-file={directory}/digest", f"--state-dir={directory}/state-{turn}"),
                )
                self.pushed[name] = Digest.parse(Path(directory, "digest").read_text())
                self.counts[f"steps cached in {turn} builds"] += said.count(": CACHED")


async def check(client: RegistryClient, name: Name, digest: Digest) -> None:
    """Reads an image whole. Raises AssertionError for any byte that is wrong."""
    repository, tag = name
    reply = await client.get_manifest(repository, tag)
    assert Digest.of(reply.raw) == digest, f"{name} is another manifest"
    manifest = parse_manifest(reply.raw, reply.media_type)
    assert isinstance(manifest, Manifest)
    for blob in (manifest.config, *manifest.layers):
        got = bytearray()
        async with client.open_blob(repository, blob.digest) as opened:
            async for chunk in opened.chunks:
                got += chunk
        assert (len(got), Digest.of(bytes(got))) == (blob.size, blob.digest), f"{blob.digest}: not the right bytes"
