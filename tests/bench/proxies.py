"""The bench of the proxy: the same requests to each server, the servers taking turns."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import loads
from tests.bench.loads import Content
from tests.bench.report import Results, machine
from tests.bench.servers import SERVERS, Direct, Running, Server, start_usual_registry
from tests.debian import push_layout, write_layout
from tests.peers import Registry

NEEDS = ("docker-registry", "skopeo", "nginx", "wrk")
REPOSITORY = "bench/app"
MANIFEST = f"/v2/{REPOSITORY}/manifests/1"


@dataclass(frozen=True)
class Size:
    """How much is moved."""

    manifest_s: int = 4
    blob_bytes: int = 200_000_000
    one_client_times: int = 40
    clients_times: int = 3
    cold_clients: int = 100
    large_bytes: int = 1_000_000_000
    streams: int = 100
    streams_s: float = 5.0
    stream_bytes_s: int = 10_000_000


FULL = Size()
QUICK = Size(
    manifest_s=1,
    blob_bytes=1_000_000,
    one_client_times=2,
    clients_times=1,
    cold_clients=4,
    large_bytes=4_000_000,
    streams=4,
    streams_s=0.2,
    stream_bytes_s=1_000_000,
)


@dataclass(frozen=True)
class Bench:
    """What all cases have in common."""

    behind: Registry
    size: Size
    blob: Content
    large: Content


Case = Callable[[Bench, Server, Running], Iterator[tuple[str, float]]]


def measure(tmp: Path, runs: int, size: Size) -> str:
    """Runs the bench; gives its table and under what conditions it was made."""
    results = Results([server.title for server in SERVERS])
    with start_usual_registry(tmp / "behind") as behind:
        bench = prepare(tmp, behind, size)
        for run in range(runs):
            for number, server in enumerate(SERVERS):
                place = tmp / f"{run}-{number}"
                with server.running(place, behind) as running:
                    for case in CASES:
                        for row, value in case(bench, server, running):
                            results.add(row, server.title, value)
                shutil.rmtree(place, ignore_errors=True)
        limit = client_limit(bench)
    return f"{results.table('through')}\n\n{conditions(runs, size, limit)}"


def prepare(tmp: Path, behind: Registry, size: Size) -> Bench:
    """Fills the registry."""
    (tmp / "root").mkdir()
    (tmp / "root" / "file").write_text("a small image, for its manifest\n")
    write_layout(tmp / "root", tmp / "layout")
    push_layout(tmp / "layout", f"{behind.host}/{REPOSITORY}:1")
    blob = loads.write_content(tmp / "blob", size.blob_bytes)
    large = loads.write_content(tmp / "large", size.large_bytes)
    for content in (blob, large):
        loads.upload(behind.host, REPOSITORY, content)
    return Bench(behind, size, blob, large)


def blob_path(content: Content) -> str:
    return f"/v2/{REPOSITORY}/blobs/{content.digest}"


def cold_blob(bench: Bench, server: Server, running: Running) -> Iterator[tuple[str, float]]:
    """Many ask at once for a blob that is not cached."""
    if not server.caches:
        return
    path = blob_path(bench.blob)
    before = bench.behind.count("GET", path)
    drained = loads.drain(running.address, path, bench.size.cold_clients)
    lags_ms = [(at - drained.first_bytes_s[0]) * 1000 for at in drained.first_bytes_s[1:]]
    title = f"{bench.size.cold_clients} clients, one cold blob"
    yield f"{title}: fetches from the registry", bench.behind.count("GET", path) - before
    yield f"{title}: first byte, median follower after the leader, ms", statistics.median(lags_ms)
    yield f"{title}: first byte, last follower after the leader, ms", lags_ms[-1]
    yield f"{title}: all done, s", drained.seconds


def warm_manifest(bench: Bench, server: Server, running: Running) -> Iterator[tuple[str, float]]:
    """A manifest by tag, again and again, in 16 connections."""
    loads.drain(running.address, MANIFEST)
    cpu_s = running.cpu_s()
    hits = loads.hit(running.address, MANIFEST, 16, bench.size.manifest_s)
    yield "manifest by tag, warm: requests/s", hits.requests_s
    yield "manifest by tag, warm: p99, ms", hits.p99_ms
    used_s = max(running.cpu_s() - cpu_s, 0.01)
    yield "manifest by tag, warm: requests per second of processor", hits.requests_s * bench.size.manifest_s / used_s


def warm_blob(bench: Bench, server: Server, running: Running) -> Iterator[tuple[str, float]]:
    """A blob that is cached, to one and to 16 clients."""
    path = blob_path(bench.blob)
    loads.drain(running.address, path)
    one = loads.drain(running.address, path, 1, bench.size.one_client_times)
    yield "blob, warm, 1 client: GB/s", one.gigabytes_s
    yield "blob, warm, 16 clients: GB/s", loads.drain(running.address, path, 16, bench.size.clients_times).gigabytes_s


def push(bench: Bench, server: Server, running: Running) -> Iterator[tuple[str, float]]:
    """A large blob pushed, to the registry behind or through the server to it."""
    if server.forwards_pushes:
        content = loads.write_content(bench.large.path.with_name("pushed"), bench.size.large_bytes)
        yield f"push of {content.size_bytes / 1e9:g} GB: s", loads.upload(running.address, "bench/pushed", content)


def streams(bench: Bench, server: Server, running: Running) -> Iterator[tuple[str, float]]:
    """Memory while many read a large blob slowly: at first it is not cached, then it is."""
    size = bench.size
    for state in ("cold", "warm") if server.caches else ("warm",):
        running.forget_peak()
        loads.trickle(running.address, blob_path(bench.large), size.streams, size.stream_bytes_s, size.streams_s)
        yield (
            f"{size.streams} slow readers of {size.large_bytes / 1e9:g} GB, {state}: peak memory, MB",
            (running.peak_bytes() / 1e6),
        )
        if state == "cold":
            loads.drain(running.address, blob_path(bench.large))


CASES: tuple[Case, ...] = (cold_blob, warm_manifest, warm_blob, push, streams)


def client_limit(bench: Bench) -> float:
    """GB/s that one client reads from a server that does nothing but sendfile."""
    with loads.bare_server(bench.blob) as address:
        return loads.drain(address, "/", 1, bench.size.one_client_times).gigabytes_s


def conditions(runs: int, size: Size, limit: float) -> str:
    """What was measured, and on what."""
    return (
        f"Medians of {runs} runs (range in brackets); the servers take turns, each starts with an empty cache before "
        f"the same {Direct.title}, and runs as it comes: Crossdock as one process with its log in a file, the others "
        f"with their access log in one. Manifest: wrk, 16 connections, {size.manifest_s} s. Blob: "
        f"{size.blob_bytes / 1e6:g} MB; the client lets the kernel discard what comes, and reads {limit:.1f} GB/s from "
        f"a server that does nothing but sendfile. Slow readers: {size.stream_bytes_s / 1e6:g} MB/s each for "
        f"{size.streams_s:g} s. Everything over plain HTTP on 127.0.0.1. {machine()}"
    )
