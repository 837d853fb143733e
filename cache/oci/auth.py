"""Authorization: Basic, and Bearer tokens fetched and kept per identity (distribution's token specification).

The registry says by its challenge what it wants; that is remembered, so that only the first request of all is refused.
Credentials go to the registry's own realm only: over https, or over http when the registry itself is reached so, and
where that is limited (``cache.oci.reach``) to a host of the registry's own domain or one that the settings name.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import msgspec
from cachetools import LRUCache
from yarl import URL

from cache.oci.challenge import Challenge, merge_scopes, parse_challenges
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.errors import Denied, ErrorDetail, InvalidReply, RegistryError
from cache.oci.observer import UNOBSERVED, Observer
from cache.oci.reach import Reach
from cache.oci.redirect import RefusedRedirect, check_step, parse_url
from cache.oci.replies import with_query
from cache.oci.transport import Transport, failure, read_limited

DEFAULT_LIFETIME_S = 60.0
TOKEN_REPLY_BYTES = 256 * 1024
CLIENT_ID = "crossdock"


class _Reply(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is good for, and whose it is."""

    realm: str
    service: str
    fingerprint: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and how long it lives from when it was fetched."""

    value: str = field(repr=False)
    lifetime_s: float = DEFAULT_LIFETIME_S

    @property
    def use_s(self) -> float:
        """How long to use it: renewed before its end."""
        return self.lifetime_s - min(30.0, self.lifetime_s / 4)


class TokenCache:
    """Tokens by what they are good for, and what each registry asks for. Share one among all clients of a registry.

    A token is used for ``max_use_s`` at most, however long it lives: a right that its holder has lost shows only in the
    next one.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        capacity: int = 8192,
        max_use_s: float = math.inf,
    ) -> None:
        self._clock = clock
        self._max_use_s = max_use_s
        self._tokens: LRUCache[TokenKey, tuple[str, float]] = LRUCache(capacity)
        self._locks: weakref.WeakValueDictionary[TokenKey, asyncio.Lock] = weakref.WeakValueDictionary()
        self.challenges: LRUCache[str, Challenge] = LRUCache(1024)
        """The challenge that a registry (base URL) gave last."""
        self.extra_scopes: LRUCache[tuple[str, tuple[str, ...]], tuple[str, ...]] = LRUCache(capacity)
        """What a registry asked for beyond what we would have asked."""

    async def token(self, key: TokenKey, fetch: Callable[[], Awaitable[Token]], refused: str = "") -> str:
        """A token that is still good, fetched once for all who wait; ``refused`` is one that was not taken."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            held, until = self._tokens.get(key, ("", 0.0))
            if held and held != refused and self._clock() < until:
                return held
            self._tokens.pop(key, None)
            asked_at = self._clock()
            fetched = await fetch()
            self._tokens[key] = (fetched.value, asked_at + min(fetched.use_s, self._max_use_s))
            return fetched.value


class Authenticator:
    """The ``Authorization`` of requests to one registry as one identity."""

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        credential: Credential,
        tokens: TokenCache,
        name: str = "",
        *,
        observer: Observer = UNOBSERVED,
        reach: Reach | None = None,
    ) -> None:
        self._observer = observer
        self._transport = transport
        self._base = parse_url(base_url)
        self._origin = base_url
        self._credential = credential
        self._tokens = tokens
        self._name = name or self._base.authority
        self._reach = replace(reach, for_token=True) if reach is not None else None

    async def header(self, scopes: tuple[str, ...]) -> str | None:
        """What to send at once, by what the registry asked for before; None before its first challenge."""
        challenge = self._tokens.challenges.get(self._origin)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._basic()
        extra = self._tokens.extra_scopes.get((self._origin, scopes), ())
        try:
            return await self._bearer(challenge, merge_scopes(extra, scopes))
        except Denied:
            raise
        except RegistryError:
            self._tokens.challenges.pop(self._origin, None)
            return None  # the registry may have another token server by now: it will say

    async def answer(self, headers: Iterable[str], scopes: tuple[str, ...], sent: str | None) -> str | None:
        """What to send after a 401; None when there is nothing new to send. ``sent`` is what was refused.

        Raises Denied when the token server refuses, RegistryError or Unreachable when it fails.
        """
        offered = {challenge.scheme: challenge for challenge in parse_challenges(headers)}
        if bearer := offered.get("bearer"):
            self._realm(bearer)  # one that leads nowhere is not remembered
            self._tokens.challenges[self._origin] = bearer
            if bearer.scopes:
                self._tokens.extra_scopes[(self._origin, scopes)] = bearer.scopes
            refused = (sent or "").removeprefix("Bearer ")
            return await self._bearer(bearer, merge_scopes(bearer.scopes, scopes), refused)
        if "basic" in offered:
            self._tokens.challenges[self._origin] = offered["basic"]
            header = self._basic()
            return header if header != sent else None
        return None

    def _basic(self) -> str | None:
        if not self._credential.password:
            return None
        pair = f"{self._credential.username}:{self._credential.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    async def _bearer(self, challenge: Challenge, scopes: tuple[str, ...], refused: str = "") -> str:
        realm = self._realm(challenge)
        fingerprint = self._credential.fingerprint
        key = TokenKey(str(realm), challenge.service, fingerprint, tuple(sorted(scopes)))
        token = await self._tokens.token(key, lambda: self._fetch(realm, challenge.service, scopes), refused)
        return f"Bearer {token}"

    def _realm(self, challenge: Challenge) -> URL:
        try:
            realm = parse_url(challenge.realm)
            check_step(self._base, realm)
        except (RefusedRedirect, ValueError) as error:
            raise self._denied("GET", challenge.realm, 401, f"for a token, {self._name} {error}") from error
        return realm

    async def _fetch(self, realm: URL, service: str, scopes: tuple[str, ...]) -> Token:
        """A new token: with the identity token by POST, else by GET, the password shown where there is one."""
        if self._credential.identity_token:
            form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "service": service}
            form |= {"scope": " ".join(scopes), "refresh_token": self._credential.identity_token}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return await self._ask("POST", str(realm), headers, urlencode(form).encode())
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        if self._credential.username:
            query.append(("account", self._credential.username))
        basic = self._basic()
        return await self._ask(
            "GET", with_query(str(realm), urlencode(query)), {"Authorization": basic} if basic else {}, None
        )

    async def _ask(self, method: str, url: str, headers: dict[str, str], data: bytes | None) -> Token:
        self._observer.token_fetched(self._name)
        async with self._transport.request(method, url, headers, data, self._reach) as response:
            if response.status != 200:
                failed = await failure(method, url, response)
                if response.status in (401, 403) or (response.status == 400 and method == "POST"):
                    raise self._denied(method, url, response.status, self._refusal(), failed.details)
                raise failed
            return _token(method, url, await read_limited(response, TOKEN_REPLY_BYTES, "the token server's reply"))

    def _refusal(self) -> str:
        match self._credential:
            case Credential(identity_token=token) if token:
                return f"the identity token for {self._name} was refused"
            case Credential(username=username, password=password) if password:
                return f"the password of user {username!r} for {self._name} was refused"
            case _:
                return f"{self._name} gives anonymous users no token, and no credentials are configured for it"

    def _denied(self, method: str, url: str, status: int, reason: str, details: tuple[ErrorDetail, ...] = ()) -> Denied:
        error = Denied(method, url, status, details, reason)
        error.challenge = self._asked()
        return error

    def refused(self, failed: Denied) -> Denied:
        """The registry's own 401 or 403, said with who we were to it."""
        error = Denied(failed.method, failed.url, failed.status, failed.details, self._refused_as(failed))
        error.challenge = failed.challenge
        return error

    def _refused_as(self, failed: Denied) -> str:
        if self._credential == ANONYMOUS:
            return f"no credentials are configured for {self._name}"
        # A token that was given and is not enough says nothing against the password.
        if failed.status == 403 or failed.challenge.lower().startswith("bearer"):
            return f"user {self._credential.username!r} of {self._name} may not do this"
        return self._refusal()

    def _asked(self) -> str:
        challenge = self._tokens.challenges.get(self._origin)
        if challenge is None:
            return ""
        parameters = ",".join(f'{name}="{value}"' for name, value in challenge.parameters.items())
        return f"{challenge.scheme.title()} {parameters}"


def _token(method: str, url: str, body: bytes) -> Token:
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReply(method, url, 200, reason="the token server's reply is not JSON that fits") from error
    value = reply.token or reply.access_token
    if not value or not value.isascii() or not value.isprintable():
        raise InvalidReply(method, url, 200, reason="the token server's reply has no token")
    return Token(value, reply.expires_in if reply.expires_in and reply.expires_in > 0 else DEFAULT_LIFETIME_S)
