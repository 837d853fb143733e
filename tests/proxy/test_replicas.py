"""Several replicas over one store, and clients whose every request comes to another one."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest

from cache import paths
from cache.disk.filesystem import FilesystemStore
from cache.errors import DamagedRecord
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from proxy.cluster.replica_key import KEY_BYTES, SIGNATURE_LIFE_S, ReplicaKey
from proxy.cluster.replicas import REPLICA_HEADER, Replicas, load_key
from tests.debian import write_layout
from tests.peers import Registry, start_balancer
from tests.proxy.cluster import Replica, replicas
from tests.proxy.processes import until

KEY, OTHER_KEY = ReplicaKey(b"k" * KEY_BYTES), ReplicaKey(b"o" * KEY_BYTES)
PIECE_BYTES = 700_000


def test_an_uploads_name_leads_to_its_owner_and_can_be_neither_made_up_nor_read() -> None:
    name = KEY.upload_name("upload", "http://10.0.0.1:5000")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert KEY.upload_owner(name) == "http://10.0.0.1:5000"
    assert OTHER_KEY.upload_owner(name) is None
    assert b"10.0.0.1" not in base64.urlsafe_b64decode(name + "=" * (-len(name) % 4))
    changed = [name[:place] + ("A" if name[place] != "A" else "B") + name[place + 1 :] for place in range(len(name))]
    for forged in (*changed, name[:-1], name[:24], f"{name}A", f"{name}=", f"{name}\n", "upload", "", "..", "\u00e9"):
        assert KEY.upload_owner(forged) is None, forged


def test_a_signature_is_for_one_request_and_a_short_time() -> None:
    signature = KEY.sign("GET", "/x?y=1", 1000.9)
    assert KEY.accepts(signature, "GET", "/x?y=1", 1000.0 + SIGNATURE_LIFE_S)
    assert not KEY.accepts(signature, "GET", "/x?y=1", 1001.0 + SIGNATURE_LIFE_S)
    assert not KEY.accepts(signature, "GET", "/x?y=1", 999.0 - SIGNATURE_LIFE_S)
    assert not KEY.accepts(signature, "PUT", "/x?y=1", 1000.0)
    assert not KEY.accepts(signature, "GET", "/x?y=2", 1000.0)
    assert not OTHER_KEY.accepts(signature, "GET", "/x?y=1", 1000.0)
    for broken in ("", ".", "1000", "1000.", f"1001{signature[4:]}", "x" + signature):
        assert not KEY.accepts(broken, "GET", "/x?y=1", 1000.0), broken


def test_the_key_is_never_shown() -> None:
    assert repr(KEY) == "ReplicaKey()"
    with pytest.raises(ValueError, match="32 bytes, got 1"):
        ReplicaKey(b"k")


async def test_replicas_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    keys = await asyncio.gather(*(load_key(FilesystemStore(tmp_path)) for _ in range(8)))
    assert len({key.secret for key in keys}) == 1
    assert await load_key(MemoryStore()) != keys[0]


async def test_a_damaged_key_is_not_used() -> None:
    store = MemoryStore()
    await store.put(paths.replica_key(), b"short")
    with pytest.raises(DamagedRecord):
        await Replicas(store, "http://r1:1").open()


async def test_alone_an_upload_has_no_place_and_the_store_no_key() -> None:
    store = MemoryStore()
    alone = Replicas(store, None)
    await alone.open()
    assert alone.upload_name("upload") == "upload"
    assert alone.owner_of(KEY.upload_name("upload", "http://r1:1")) is None
    assert await store.get(paths.replica_key()) is None


def store_of(replica: Replica) -> Path:
    return replica.log.parent / "store"


async def test_every_request_of_an_upload_may_come_to_another_replica(trio: list[Replica]) -> None:
    data = random.Random(4).randbytes(3 * PIECE_BYTES)
    digest = Digest.of(data)
    one, two, three = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/") as reply:
            assert reply.status == 202
            place = reply.headers["Location"]
        turns = itertools.cycle((two, three, one))
        for start in range(0, 2 * PIECE_BYTES, PIECE_BYTES):
            headers = {"Content-Range": f"{start}-{start + PIECE_BYTES - 1}"}
            piece = data[start : start + PIECE_BYTES]
            async with session.patch(next(turns).url + place, data=piece, headers=headers) as reply:
                assert (reply.status, reply.headers["Range"]) == (202, f"0-{start + PIECE_BYTES - 1}")
                place = reply.headers["Location"]
        async with session.get(three.url + place) as reply:
            assert (reply.status, reply.headers["Range"]) == (204, f"0-{2 * PIECE_BYTES - 1}")
        wrong = {"Content-Range": "0-9"}
        async with session.patch(two.url + place, data=b"0123456789", headers=wrong) as reply:
            assert reply.status == 416
        last = data[2 * PIECE_BYTES :]
        async with session.put(f"{two.url}{place}?digest={digest}", data=last) as reply:
            assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, str(digest))
        for replica in (one, two, three):
            async with session.get(f"{replica.url}/v2/cache/app/blobs/{digest}") as reply:
                assert await reply.read() == data
        async with session.get(two.url + place) as reply:
            assert reply.status == 404
    lines = {replica.url: replica.lines("blob_push_answered") for replica in trio}
    counted = [url for url, answered in lines.items() for line in answered if line["digest"] == str(digest)]
    assert counted == [one.url], "the owner alone accounts for the push"


async def test_an_upload_whose_replica_is_gone_is_unknown(trio: list[Replica]) -> None:
    one, two, _ = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/") as reply:
            place = reply.headers["Location"]
        one.restart()
        for method in ("PATCH", "GET", "DELETE"):
            async with session.request(method, two.url + place, data=b"x" if method == "PATCH" else None) as reply:
                assert reply.status == 404
                assert (await reply.json())["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"
    one.wait()


async def test_a_name_that_no_replica_made_leads_nowhere(trio: list[Replica]) -> None:
    one, two, _ = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/cache/forged/blobs/uploads/") as reply:
            name = reply.headers["Docker-Upload-UUID"]
        changed = name[:30] + ("A" if name[30] != "A" else "B") + name[31:]
        for forged in (KEY.upload_name("upload", one.url), changed):
            async with session.get(f"{two.url}/v2/cache/forged/blobs/uploads/{forged}") as reply:
                assert reply.status == 404
    served = [line for line in one.lines("request_served") if line["repository"] == "cache/forged"]
    assert [line["method"] for line in served] == ["POST"]


async def test_a_request_is_passed_on_once(trio: list[Replica]) -> None:
    one, two, _ = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/") as reply:
            place = reply.headers["Location"]
        key = await load_key(FilesystemStore(store_of(one)))
        signed = {REPLICA_HEADER: key.sign("GET", place, time.time())}
        async with session.get(two.url + place, headers=signed) as reply:
            assert reply.status == 404
        async with session.get(two.url + place, headers={REPLICA_HEADER: "1"}) as reply:
            assert reply.status == 204
            assert REPLICA_HEADER not in reply.headers


async def test_a_client_may_call_the_cluster_by_a_name_that_the_owner_does_not_have(
    trio: list[Replica], tmp_path: Path
) -> None:
    """A pod that is asked by its address is known by that, and its neighbour by another."""
    one = trio[0]
    with replicas(tmp_path, 1, f"--store=file://{store_of(one)}", "--host=two.test") as (two,):
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{one.url}/v2/", headers={"Host": "two.test"}) as reply:
                assert reply.status == 421
            async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/") as reply:
                place = reply.headers["Location"]
            async with session.get(two.url + place, headers={"Host": "two.test"}) as reply:
                assert reply.status == 204


async def test_the_owner_judges_who_asks(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("ann:ann-has-a-long-token\nbob:bob-has-a-long-token\n")
    options = (f"--tokens={tmp_path}/tokens", "--rule=* cache all")
    with replicas(tmp_path, 2, *options) as (one, two):
        async with aiohttp.ClientSession() as session:
            logins = (aiohttp.encode_basic_auth(name, f"{name}-has-a-long-token") for name in ("ann", "bob"))
            ann, bob = ({"Authorization": login} for login in logins)
            async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/", headers=ann) as reply:
                place = reply.headers["Location"]
            for headers, status in ((bob, 404), (ann, 204)):
                async with session.get(two.url + place, headers=headers) as reply:
                    assert reply.status == status


async def test_a_client_that_leaves_in_the_middle_can_come_back_elsewhere(trio: list[Replica]) -> None:
    data = random.Random(5).randbytes(PIECE_BYTES)
    one, two, three = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/cache/app/blobs/uploads/") as reply:
            place = reply.headers["Location"]
        host, port = two.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"PATCH {place} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[:300_000])
        await writer.drain()
        writer.close()
        for _ in range(50):
            async with session.get(three.url + place) as reply:
                start = int(reply.headers["Range"].partition("-")[2]) + 1
            start = 0 if start == 1 else start
            headers = {"Content-Range": f"{start}-{len(data) - 1}"}
            async with session.patch(three.url + place, data=data[start:], headers=headers) as reply:
                if reply.status == 202:
                    break
        async with session.put(f"{two.url}{place}?digest={Digest.of(data)}") as reply:
            assert reply.status == 201


def test_skopeo_pushes_and_pulls_through_a_balancer_without_stickiness(trio: list[Replica], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data").write_bytes(random.Random(7).randbytes(3_000_000))
    write_layout(tmp_path / "root", tmp_path / "layout")
    with start_balancer(tmp_path, [replica.url.removeprefix("http://") for replica in trio]) as address:
        for number in range(3):
            image = f"docker://{address}/cache/skopeo{number}:1"
            skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:base", image)
            skopeo("copy", "--src-tls-verify=false", image, f"oci:{tmp_path}/back{number}")
    for replica in trio:
        assert any("skopeo" in str(line["repository"]) for line in replica.lines("request_served"))
    blobs = sorted(path.name for path in (tmp_path / "layout/blobs/sha256").iterdir())
    assert sorted(path.name for path in (tmp_path / "back2/blobs/sha256").iterdir()) == blobs


def skopeo(*arguments: str) -> None:
    subprocess.run(["skopeo", *arguments], check=True, capture_output=True, timeout=60)


async def test_forwarded_pushes_pass_through_too(trio: list[Replica], trio_registry: Registry) -> None:
    data = random.Random(6).randbytes(PIECE_BYTES)
    one, two, _ = trio
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{one.url}/v2/team/app/blobs/uploads/") as reply:
            place = reply.headers["Location"]
        async with session.patch(two.url + place, data=data) as reply:
            assert reply.status == 202
        async with session.put(f"{two.url}{place}?digest={Digest.of(data)}") as reply:
            assert reply.status == 201
        async with session.get(f"{trio_registry.url}/v2/team/app/blobs/{Digest.of(data)}") as reply:
            assert await reply.read() == data


async def test_who_drains_waits_for_uploads_that_are_finished_through_others(trio: list[Replica]) -> None:
    data = random.Random(8).randbytes(PIECE_BYTES)
    one, two, owner = trio  # at which no other test begins an upload
    async with aiohttp.ClientSession() as session:
        places = []
        for repository in ("cache/drained", "team/drained"):
            async with session.post(f"{owner.url}/v2/{repository}/blobs/uploads/") as reply:
                places.append(reply.headers["Location"])
        owner.process.send_signal(signal.SIGTERM)
        await until(lambda: bool(owner.lines("proxy_draining")), "it drains")
        for place in places:
            async with session.post(f"{owner.url}/v2/cache/drained/blobs/uploads/") as reply:
                assert reply.status == 503
            async with session.patch(one.url + place, data=data[:100]) as reply:
                assert reply.status == 202
            async with session.patch(two.url + reply.headers["Location"], data=data[100:]) as reply:
                assert reply.status == 202
            assert owner.process.poll() is None
            async with session.put(f"{one.url}{reply.headers['Location']}?digest={Digest.of(data)}") as reply:
                assert reply.status == 201
        await until(lambda: owner.process.poll() is not None, "it ends")
        (line,) = owner.lines("proxy_stopping")
        assert (owner.process.returncode, line["cut_short"]) == (0, 0)
        for repository in ("cache/drained", "team/drained"):
            async with session.get(f"{one.url}/v2/{repository}/blobs/{Digest.of(data)}") as reply:
                assert await reply.read() == data
    owner.restart()
    owner.wait()
