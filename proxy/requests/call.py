"""One request on its way through the endpoints: who asks, for what, and what every reply to it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from cache.entry import FEATURES_HEADER, LOOKUP_FEATURE
from cache.oci.digest import Digest
from proxy.auth.caller import Caller
from proxy.auth.rights import Right
from proxy.requests.outcome import Outcome
from proxy.requests.request import Request
from proxy.requests.routing import Proxied, Route

SCOPE = web.RequestKey("scope", str)
"""What a client needs a token for, should credentials be wanted."""
UPSTREAM = web.RequestKey("upstream", str)
"""The upstream that the request goes to, for messages; absent for our own."""
WHO = web.RequestKey("who", str)
"""Who asks, once that is known."""
ASKED: web.RequestKey[Request] = web.RequestKey("asked")
"""What is asked for, once that is understood; absent outside ``/v2/``."""
PASSED_ON = web.RequestKey("passed_on", bool)
"""Set where another replica answers: it counts the request, and accounts for it."""
ERROR = web.RequestKey("error", Exception)
"""Why the reply is not success."""
SENT_BYTES = web.RequestKey("sent_bytes", int)
"""How much of a body has been sent, where the reply was sent by ourselves."""
REQUEST_ID_HEADER = "X-Request-Id"
API_HEADERS = {"Docker-Distribution-API-Version": "registry/2.0", FEATURES_HEADER: LOOKUP_FEATURE}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request would do. ``place`` is the repository as rules name it."""

    place: str
    right: Right


WANTED = web.RequestKey("wanted", Wanted)


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its repository resolved. ``name`` is the repository as the client calls it."""

    http: web.Request
    name: str
    route: Route
    caller: Caller

    @property
    def owner(self) -> str:
        """Whose uploads these are."""
        return f"{self.caller.who}:{self.caller.fingerprint}"

    def headers(
        self, outcome: Outcome, digest: Digest | None = None, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The headers that say what happened."""
        headers = {**API_HEADERS, **outcome.headers, **(more or {})}
        if isinstance(self.route, Proxied):
            headers["OCI-Namespace"] = self.route.upstream.name
        if digest is not None:
            headers["Docker-Content-Digest"] = str(digest)
        return headers

    def next_page(self, rest: str, query: Mapping[str, str]) -> dict[str, str]:
        """The Link header to the next page of a list, at the same endpoint of this repository."""
        path = self.path(rest)
        return {"Link": f'<{path}{"&" if "?" in path else "?"}{urlencode(query)}>; rel="next"'}

    def path(self, rest: str) -> str:
        """A relative Location in this repository, with the ``ns`` that the request came with."""
        ns = self.http.query.get("ns")
        query = f"?ns={ns}" if ns is not None else ""
        return f"/v2/{self.name}/{rest}{query}"
