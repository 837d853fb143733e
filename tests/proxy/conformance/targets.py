"""What the suite runs against: hosted repositories, and upstreams' repositories behind the proxy.

``LACKS`` is what an upstream cannot do; every test that meets such a lack says what happens instead.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cache.memory import MemoryStore
from cache.oci import media_types
from cache.oci.digest import Digest
from tests.peers import Registry
from tests.proxy.running import UPSTREAM, running_proxy

TARGETS = ("hosted-on-disk", "hosted-in-memory", "docker-registry", "crossdock")
LACKS = {
    "docker-registry": frozenset(
        {
            "referrers",  # no API: clients keep an index under a tag
            "sha512 manifests",  # they are looked for under their SHA-256 only
            "delete by tag",
            "sparse indexes",  # every manifest of an index must be there
        }
    )
}
EMPTY_JSON = b"{}"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    """An answer read whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The first error's code."""
        return str(json.loads(self.body)["errors"][0]["code"])

    @property
    def message(self) -> str:
        """The first error's message."""
        return str(json.loads(self.body)["errors"][0]["message"])


@dataclass(frozen=True)
class Target:
    """A repository that nobody used before, as a client reaches it."""

    name: str
    url: str
    session: aiohttp.ClientSession
    prefix: str
    repository: str

    def lacks(self, ability: str) -> bool:
        """Whether what stands behind the proxy cannot do it."""
        return ability in LACKS.get(self.name, ())

    @property
    def hosted(self) -> bool:
        """Whether the repository lives in the proxy itself."""
        return self.name.startswith("hosted")

    @property
    def base(self) -> str:
        """The repository's path."""
        return f"/v2/{self.repository}"

    def other_repository(self) -> str:
        """The name of another new repository at the same place."""
        return f"{self.prefix}-{next(_numbers)}"

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Reply:
        """One request; a path without a slash in front is within the repository. Header names are written with _."""
        url = path if path.startswith(("/", "http")) else f"{self.base}/{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = io.BytesIO(data) if isinstance(data, bytes) and len(data) > 1 << 20 else data
        async with self.session.request(method, url, data=body, headers=named, allow_redirects=False) as response:
            return Reply(response.status, response.headers, await response.read())

    async def start(self) -> str:
        """The location of a new upload."""
        reply = await self.ask("POST", "blobs/uploads/")
        assert (reply.status, reply.body) == (202, b"")
        return str(reply.headers["Location"])

    async def finish(self, location: str, digest: Digest, data: Any = b"", **headers: str) -> Reply:
        """Closes an upload."""
        return await self.ask("PUT", with_digest(location, digest), data, **headers)

    async def blob(self, data: bytes, algorithm: str = "sha256") -> dict[str, Any]:
        """Pushes a blob and gives its descriptor, of no particular type."""
        digest = Digest.of(data, algorithm)
        reply = await self.finish(await self.start(), digest, data)
        assert reply.status == 201, reply
        return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}

    async def put(
        self, reference: object, document: dict[str, Any] | bytes, tags: Sequence[str] = (), media_type: str = ""
    ) -> Reply:
        """Pushes a manifest under a tag or digest."""
        raw = document if isinstance(document, bytes) else raw_of(document)
        kind = media_type or json.loads(raw)["mediaType"]
        query = "?" + "&".join(f"tag={tag}" for tag in tags) if tags else ""
        return await self.ask("PUT", f"manifests/{reference}{query}", raw, Content_Type=kind)

    async def image(self, seed: str = "image", **more: Any) -> dict[str, Any]:
        """An image manifest whose blobs are there."""
        config, layer = await self.blob(EMPTY_JSON), await self.blob(f"layer of {seed}".encode())
        layer |= {"mediaType": media_types.OCI_LAYER}
        return manifest(config | {"mediaType": media_types.OCI_CONFIG}, [layer], **more)


def manifest(config: dict[str, Any], layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """An image manifest."""
    head = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST}
    return {**head, "config": config, "layers": layers, **more}


def index(manifests: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """An image index."""
    return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests, **more}


def raw_of(document: dict[str, Any]) -> bytes:
    """The bytes that a document is pushed as: with spaces, so that who writes it anew is found out."""
    return json.dumps(document, indent=1).encode()


def described(document: dict[str, Any] | bytes, algorithm: str = "sha256", **more: Any) -> dict[str, Any]:
    """The descriptor of a manifest."""
    raw = document if isinstance(document, bytes) else raw_of(document)
    kind = json.loads(raw)["mediaType"]
    return {"mediaType": kind, "digest": str(Digest.of(raw, algorithm)), "size": len(raw), **more}


def digest_of(document: dict[str, Any], algorithm: str = "sha256") -> Digest:
    """The digest of a manifest."""
    return Digest.of(raw_of(document), algorithm)


def with_digest(location: str, digest: Digest) -> str:
    """The location with the digest that closes an upload."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def next_link(reply: Reply) -> str | None:
    """Where a list goes on."""
    link = reply.headers.get("Link")
    if link is None:
        return None
    assert link.endswith('>; rel="next"')
    assert link.startswith("</v2/"), "the upstream's address must not be seen"
    return str(link[1:].partition(">")[0])


@asynccontextmanager
async def running_target(name: str, tmp: Path, registry: Registry | None) -> AsyncIterator[Target]:
    """The proxy in front of what ``name`` says, with ``registry`` behind it where there is one."""
    async with AsyncExitStack() as stack:
        upstreams, prefix = {}, "cache/spec"
        if registry is not None:
            upstreams, prefix = {UPSTREAM: registry.url}, f"{UPSTREAM}/org/spec"
        elif name == "crossdock":
            behind = await stack.enter_async_context(running_proxy(tmp / "behind", {}, store=MemoryStore()))
            upstreams, prefix = {UPSTREAM: behind.url}, f"{UPSTREAM}/cache/spec"
        store = MemoryStore() if name == "hosted-in-memory" else None
        proxy = await stack.enter_async_context(running_proxy(tmp / "front", upstreams, store=store))
        session = await stack.enter_async_context(aiohttp.ClientSession(proxy.url))
        yield Target(name, proxy.url, session, prefix, f"{prefix}-{next(_numbers)}")
