"""Large blobs by a redirect to a real bucket: who is sent there, who is not, and what never gets out."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.errors import StoreUnavailable
from cache.oci.digest import Digest
from cache.s3.location import S3Location
from cache.s3.store import S3Store
from proxy.config import Redirection
from proxy.transfer.redirects import keeps_credentials, may_redirect
from tests.cache.conftest import new_location
from tests.programs import write_docker_config
from tests.proxy.clients import Skopeo
from tests.proxy.running import Image, Proxy, client_of, get, head, make_image, push, running_proxy
from tests.s3_servers import BUCKET, S3Server

LOCAL = Redirection((ip_network("127.0.0.0/8"),), 100_000)
SECRET = re.compile(r"X-Amz-(Signature|Credential)", re.IGNORECASE)


@pytest.fixture
def location(seaweedfs_server: S3Server, s3_credentials: None) -> S3Location:
    """Where an empty store is, in a real bucket."""
    found = new_location(seaweedfs_server.endpoint_url)
    assert isinstance(found, S3Location)
    return found


@asynccontextmanager
async def serving(
    tmp: Path, location: S3Location, policy: Redirection = LOCAL, **settings: Any
) -> AsyncIterator[tuple[Proxy, Image, str]]:
    """A proxy over the bucket, an image pushed to it, and its layer's URL. The proxy is called localhost, the bucket
    127.0.0.1: two hosts in the eyes of clients."""
    image, store = make_image(), settings.pop("store", None) or S3Store(location)
    async with running_proxy(tmp, {}, store=store, redirection=policy, **settings) as proxy:
        named = Proxy(proxy.url.replace("127.0.0.1", "localhost"), store)
        async with client_of(proxy.url) as client:
            await push(client, "cache/app", "v1", image)
        yield named, image, f"{named.url}/v2/cache/app/blobs/{image.layer}"


async def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """The status, the Location and the body of a reply, which is not followed."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, allow_redirects=False) as reply,
    ):
        return reply.status, reply.headers.get("Location", ""), await reply.read()


async def redirects(proxy: Proxy, outcome: str) -> int:
    _, _, body = await get(f"{proxy.url}/metrics")
    assert not SECRET.search(body.decode())
    found = re.search(rf'^proxy_redirects_total{{outcome="{outcome}"}} (\d+)', body.decode(), re.MULTILINE)
    return int(found[1]) if found else 0


async def test_a_large_blob_is_fetched_from_the_bucket(
    tmp_path: Path, location: S3Location, seaweedfs_server: S3Server, capsys: pytest.CaptureFixture[str]
):
    async with serving(tmp_path, location) as (proxy, image, url):
        status, elsewhere, body = await asked(url)
        assert (status, body) == (307, b"")
        assert elsewhere.startswith(f"{seaweedfs_server.endpoint_url}/{BUCKET}/")
        async with aiohttp.ClientSession() as http, http.get(url) as reply:
            assert str(reply.history[0].headers["Docker-Content-Digest"]) == str(image.layer)
            assert reply.history[0].headers["Cache-Control"] == "no-store"
            assert await reply.read() == image.blobs[image.layer]
        async with aiohttp.ClientSession() as http, http.get(url, headers={"Range": "bytes=10-19"}) as reply:
            assert (reply.status, await reply.read()) == (206, image.blobs[image.layer][10:20])
        assert await redirects(proxy, "redirected") == 3
    said = "".join(capsys.readouterr())
    assert "request_served" in said
    assert not SECRET.search(said)


async def test_who_is_not_sent_there(tmp_path: Path, location: S3Location):
    async with serving(tmp_path, location) as (proxy, image, url):
        status, headers = await head(url)
        assert (status, headers["Content-Length"]) == (200, str(len(image.blobs[image.layer])))
        assert (await asked(url, **{"Crossdock-Redirect": "never"}))[2] == image.blobs[image.layer]
        config = image.manifest.config.digest
        small = await asked(f"{proxy.url}/v2/cache/app/blobs/{config}")
        assert (small[0], small[2]) == (200, image.blobs[config])
        same_name = url.replace("localhost", "127.0.0.1")
        assert (await asked(same_name))[0] == 307
        login = f"Basic {base64.b64encode(b'somebody:secret').decode()}"
        assert (await asked(same_name, Authorization=login))[2] == image.blobs[image.layer]
        unknown = url.replace(str(image.layer), str(Digest.of(b"unknown")))
        assert (await asked(unknown))[0] == 404
        assert await redirects(proxy, "redirected") == 1


async def test_other_networks_get_the_bytes_here(tmp_path: Path, location: S3Location):
    elsewhere = Redirection((ip_network("10.0.0.0/8"),), 0)
    async with serving(tmp_path, location, elsewhere) as (_, image, url):
        assert (await asked(url))[2] == image.blobs[image.layer]
    async with serving(tmp_path, location, Redirection()) as (_, image, url):
        assert (await asked(url))[2] == image.blobs[image.layer]


async def test_where_no_url_can_be_signed_the_bytes_come_from_here(
    tmp_path: Path, location: S3Location, monkeypatch: pytest.MonkeyPatch
):
    store = S3Store(location)

    async def failing(digest: Digest, expires_s: int) -> str:
        raise StoreUnavailable(store.url, "sign a URL")

    monkeypatch.setattr(store, "presigned_url", failing)
    async with serving(tmp_path, location, store=store) as (proxy, image, url):
        assert (await asked(url))[2] == image.blobs[image.layer]
        assert await redirects(proxy, "failed") == 1


async def test_the_disk_is_nearer_than_the_bucket(tmp_path: Path, location: S3Location):
    tiered = TieredStore(S3Store(location), DiskTier(tmp_path / "disk", 50_000_000))
    await tiered.check()
    await tiered.settled()
    async with serving(tmp_path, location, store=tiered) as (_, image, url):
        await tiered.settled()
        assert (await asked(url))[2] == image.blobs[image.layer]
        await tiered.drop_copy(image.layer)
        assert (await asked(url))[0] == 307
        assert tiered.local_path(image.layer) is None  # what others carry is not kept here


async def test_what_has_just_gone_is_not_redirected_to(tmp_path: Path, location: S3Location):
    tiered = TieredStore(S3Store(location), DiskTier(tmp_path / "disk", 50_000_000))
    await tiered.check()
    await tiered.settled()
    async with serving(tmp_path, location, store=tiered) as (_, image, url):
        await tiered.settled()
        await tiered.drop_copy(image.layer)
        other = S3Store(location)
        await other.delete(image.layer)  # another replica has put it aside; its size is still remembered here
        await other.close()
        assert await tiered.stat(image.layer) is not None
        assert (await asked(url))[0] == 404


# A real client


@dataclass
class Relay:
    """Passes bytes on to a server, and keeps what clients say."""

    port: int = 0
    said: bytearray = field(default_factory=bytearray)

    def heads(self) -> list[str]:
        """The heads of the GET requests."""
        return re.findall(r"GET .*?\r\n\r\n", self.said.decode(errors="replace"), re.DOTALL)


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[Relay]:
    relay, port = Relay(), int(url.rpartition(":")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if keep:
                    relay.said += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_writer, True), pump(to_reader, writer, False))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()


async def test_skopeo_pulls_through_the_redirect_and_leaves_its_token_here(tmp_path: Path, location: S3Location):
    async with relayed(location.endpoint_url) as relay:
        seen = S3Location(location.bucket, location.prefix, f"http://127.0.0.1:{relay.port}", location.region)
        async with serving(tmp_path, seen) as (proxy, image, _):
            relay.said.clear()
            skopeo = Skopeo(tmp_path)
            name = f"{proxy.host}/cache/app:v1"
            config = write_docker_config(tmp_path, {proxy.host: "somebody:secret"})
            assert await skopeo.pull(name, config) == str(image.manifest.digest)
            assert await redirects(proxy, "redirected") == 1
        followed = [text for text in relay.heads() if "X-Amz-Signature" in text and image.layer.hex in text]
        assert len(followed) == 1
        assert "authorization" not in followed[0].lower()


# The decisions


@pytest.mark.parametrize(
    ("peer", "size_bytes", "sent"),
    [
        ("10.1.2.3", 100, True),
        ("::ffff:10.1.2.3", 100, True),
        ("10.1.2.3", 99, False),
        ("11.1.2.3", 100, False),
        ("fd00::1", 100, True),
        ("fe80::1", 100, False),
        (None, 100, False),
        ("unix", 100, False),
    ],
)
def test_by_network_and_size(peer: str | None, size_bytes: int, sent: bool):
    policy = Redirection((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), 100)
    assert may_redirect(policy, peer, size_bytes) is sent


@pytest.mark.parametrize(
    ("host", "url", "kept"),
    [
        ("cache.example.com:5000", "https://cache.example.com:9000/x", True),
        ("example.com", "https://s3.example.com/x", True),
        ("cache.example.com", "https://s3.example.com/x", False),
        ("[::1]:5000", "http://[::1]:9000/x", True),
        ("ample.com", "https://example.com/x", False),
    ],
)
def test_where_clients_take_their_credentials(host: str, url: str, kept: bool):
    assert keeps_credentials(host, url) is kept
