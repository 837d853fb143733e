"""Layers that are unpacked as they come from a registry: side by side, whole or not at all."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from builder.errors import BuildError
from builder.execution.stage_root import RootFactory
from builder.execution.unpacking import PARALLEL, Unpacking
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.chunk_stream import AHEAD_BYTES
from builder.layer.origins import BuildLayers, RegistryOrigin
from builder.layer.rootfs import Tree
from builder.layer.tarlayer import write_layer
from builder.layer.unpack import unpack_layer
from builder.options import DEFAULT_LIMITS
from builder.sandbox.isolation import Isolation, Rung
from cache.disk.filesystem import FilesystemStore
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.media_types import OCI_LAYER
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from tests.builder.trees import listing
from tests.fakes.registry import fake_registry, send_part

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o2750, stat.S_IFLNK | 0o777


@dataclass
class Blobs:
    """What the registry has, by digest; ``held`` come to their second half when they are released."""

    content: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def add(self, tar: bytes, content: bytes | None = None) -> Layer:
        """A layer of this uncompressed tar; the registry gives other ``content`` for it where there is some."""
        digest = Digest.of(tar)
        self.content[str(digest)] = tar if content is None else content
        return Layer(Descriptor(media_type=OCI_LAYER, digest=digest, size=len(tar)), digest)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        body = self.content[name]
        half = len(body) // 2
        self.asked.append(name)
        if name in self.broken:
            self.broken.remove(name)
            return await send_part(request, body[:half], len(body))
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response.content_length = len(body) - start
        await response.prepare(request)
        await response.write(body[start : max(start, half)])
        if name in self.held:
            await self.held[name].wait()
        await response.write(body[max(start, half) :])
        return response


def tar_of(*changes: Change) -> bytes:
    out = io.BytesIO()
    write_layer(changes, out, compression="none")
    return out.getvalue()


@pytest.fixture
def stack(tmp_path: Path) -> list[bytes]:
    """Layers that need those below them for directories, links and what they hide."""
    content = tmp_path / "content"
    content.write_text("content\n")

    def file(path: str, uid: int = 0) -> Entry:
        return Entry(path, FILE, uid=uid, size_bytes=8, content=os.fspath(content))

    return [
        tar_of(
            *(
                Entry("", DIRECTORY, uid=7),
                Entry("etc", DIRECTORY, gid=5, mtime_ns=10**9),
                file("etc/a"),
                file("etc/b"),
            ),
            *(Entry("lib", LINK, link="usr/lib"), Entry("usr", DIRECTORY), Entry("usr/lib", DIRECTORY, uid=9)),
        ),
        tar_of(file("usr/lib/x", uid=3), file("lib/y")),
        tar_of(Whiteout("etc/a"), Entry("etc/c", FILE, hardlink=True, link="usr/lib/x")),
        tar_of(file("usr/lib/deep/z")),
        tar_of(Entry("etc", DIRECTORY), Opaque("etc"), file("etc/d")),
        tar_of(Whiteout("lib"), Entry("lib", DIRECTORY, uid=1), file("lib/own")),
        tar_of(file("usr/lib/deep/z", uid=4)),
    ]


def one_after_the_other(stack: Sequence[bytes], directory: Path) -> dict[str, tuple[object, ...]]:
    """What the layers make of an empty directory."""
    directory.mkdir()
    for tar in stack:
        unpack_layer(io.BytesIO(tar), directory, overlay=False)
    return untimed(directory)


def untimed(tree: Tree | Path) -> dict[str, tuple[object, ...]]:
    """Everything but times: those of directories that a layer does not list are made up."""
    return {path: (*found[:3], *found[4:]) for path, found in listing(tree).items()}


@dataclass
class Build:
    factory: RootFactory
    layers: BuildLayers
    state: Path


@asynccontextmanager
async def building(
    tmp_path: Path, blobs: Blobs, layers: Sequence[Layer], rung: Rung, *, keeps: bool = False
) -> AsyncIterator[Build]:
    """A build whose layers are in a registry that has these blobs; nothing of it is left running afterwards."""
    state = tmp_path / "state"
    work = state / "work"
    work.mkdir(parents=True)
    store = FilesystemStore(work / "store")
    async with fake_registry(blobs.handle) as fake, Transport() as transport:
        origin = RegistryOrigin(RegistryClient(transport, fake.url, backoff=Backoff(first_s=0.01)), "a/b")
        known = BuildLayers(store, keeps=lambda _: keeps)
        for layer in layers:
            known.add(layer, origin)
        isolation = Isolation(rung, user_namespace=False, pid_namespace=False)
        factory = RootFactory(lambda: isolation, state, work, Unpacking(known, DEFAULT_LIMITS))
        try:
            yield Build(factory, known, state)
        finally:
            for event in blobs.held.values():
                event.set()
            await factory.close()
            await store.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("unpack")] == []


async def until_asked(blobs: Blobs, number: int) -> None:
    async with asyncio.timeout(20):
        while len(blobs.asked) < number:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("rung", [Rung.OVERLAY, Rung.CHROOT])
async def test_layers_come_side_by_side_and_lie_as_if_one_after_the_other(tmp_path, stack, rung):
    blobs = Blobs()
    layers = [blobs.add(tar) for tar in stack]
    lowest = blobs.held[str(layers[0].diff_id)] = asyncio.Event()
    async with building(tmp_path, blobs, layers, rung) as build:
        root, other = await build.factory.new_root(), await build.factory.new_root()
        applying = asyncio.gather(root.apply(layers), *([other.apply(layers[:5])] if rung is Rung.OVERLAY else []))
        await until_asked(blobs, PARALLEL)
        await asyncio.sleep(0.05)
        assert sorted(blobs.asked) == sorted(str(layer.diff_id) for layer in layers[:PARALLEL])
        lowest.set()
        await applying
        assert untimed(root.tree) == one_after_the_other(stack, tmp_path / "expected")
        assert sorted(blobs.asked) == sorted(str(layer.diff_id) for layer in layers)
        if rung is Rung.OVERLAY:
            assert untimed(other.tree) == one_after_the_other(stack[:5], tmp_path / "other")
        assert [build.layers.store.local_path(layer.descriptor.digest) for layer in layers] == [None] * len(layers)


@contextmanager
def nothing_left(state: Path) -> Iterator[None]:
    yield
    assert [path for path in (state / "unpacked").rglob("*") if path.name == "layer"] == []


@pytest.mark.parametrize("rung", [Rung.OVERLAY, Rung.CHROOT])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("other content", "cannot fetch layer sha256:"),
        ("too short", "cannot fetch layer .*expected"),
        ("no tar", "cannot unpack layer sha256:.*it is not a tar archive"),
        ("another diff_id", "does not hold what its image says: expected diff_id sha256:0000"),
    ],
)
async def test_what_is_wrong_leaves_no_layer(tmp_path, stack, rung, fault, message):
    blobs = Blobs()
    layers = [blobs.add(tar) for tar in stack]
    right = stack[1]
    wrong = {
        "other content": right.replace(b"content\n", b"CONTENT\n"),
        "too short": right[:-1],
        "no tar": b"x" * len(right),
        "another diff_id": right,
    }
    layers[1] = blobs.add(right, wrong[fault])
    if fault == "another diff_id":
        layers[1] = Layer(layers[1].descriptor, Digest("sha256", "0" * 64))
    async with building(tmp_path, blobs, layers, rung) as build:
        with nothing_left(build.state):
            root = await build.factory.new_root()
            with pytest.raises(BuildError, match=message):
                await root.apply(layers[1:])
            with pytest.raises(BuildError, match=message):  # whoever comes later is told the same
                await (await build.factory.new_root()).apply(layers)


async def test_a_stream_that_breaks_is_continued(tmp_path, stack):
    blobs = Blobs()
    layers = [blobs.add(tar) for tar in stack]
    blobs.broken = {str(layer.diff_id) for layer in layers[:3]}
    async with building(tmp_path, blobs, layers, Rung.OVERLAY) as build:
        root = await build.factory.new_root()
        await root.apply(layers)
        assert untimed(root.tree) == one_after_the_other(stack, tmp_path / "expected")
    assert len(blobs.asked) == len(layers) + 3


@pytest.mark.parametrize("rung", [Rung.OVERLAY, Rung.CHROOT])
async def test_a_build_that_is_interrupted_ends_while_layers_wait(tmp_path, stack, rung):
    blobs = Blobs()
    layers = [blobs.add(tar) for tar in stack]
    blobs.held[str(layers[0].diff_id)] = asyncio.Event()
    async with building(tmp_path, blobs, layers, rung) as build:
        root = await build.factory.new_root()
        applying = asyncio.create_task(root.apply(layers))
        await until_asked(blobs, PARALLEL)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
        with nothing_left(build.state):
            async with asyncio.timeout(20):
                await build.factory.close()


async def test_a_layer_that_waits_holds_little(tmp_path, stack):
    blobs = Blobs()
    lowest = blobs.add(stack[0])
    large = tmp_path / "large"
    large.write_bytes(bytes(8 * AHEAD_BYTES))
    entry = Entry("large", FILE, size_bytes=8 * AHEAD_BYTES, content=os.fspath(large))
    upper = blobs.add(tar_of(Whiteout("usr/lib"), entry))
    held = blobs.held[str(lowest.diff_id)] = asyncio.Event()
    read_bytes = 0

    @dataclass(frozen=True)
    class Counting:
        @asynccontextmanager
        async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                nonlocal read_bytes
                for start in range(0, layer.descriptor.size, 1 << 16):
                    read_bytes += 1 << 16
                    yield blobs.content[str(upper.diff_id)][start : start + (1 << 16)]

            yield chunks()

    async with building(tmp_path, blobs, [lowest], Rung.OVERLAY) as build:
        build.layers.add(upper, Counting())
        root = await build.factory.new_root()
        applying = asyncio.create_task(root.apply([lowest, upper]))
        async with asyncio.timeout(20):
            while read_bytes < AHEAD_BYTES:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert read_bytes <= 2 * AHEAD_BYTES
        held.set()
        await applying
        assert (root.directories[0] / "large").stat().st_size == 8 * AHEAD_BYTES


async def test_a_layer_whose_bytes_are_wanted_again_is_kept(tmp_path, stack):
    blobs = Blobs()
    layers = [blobs.add(tar) for tar in stack[:2]]
    async with building(tmp_path, blobs, layers, Rung.OVERLAY, keeps=True) as build:
        root = await build.factory.new_root()
        await root.apply(layers)
        kept = [build.layers.store.local_path(layer.descriptor.digest) for layer in layers]
        assert [Digest.of(path.read_bytes()) for path in kept if path] == [layer.diff_id for layer in layers]
        assert await build.factory.unpacking.unpack(layers[0], build.factory.new_directory(), no_tree, overlay=True)
    assert len(blobs.asked) == 2


async def no_tree() -> Tree:
    return Tree([])
