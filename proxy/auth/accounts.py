"""The proxy's own accounts at upstreams: read with, never pushed with.

A repository under an account's prefixes is read with the account, whoever asks. The upstream then judges the account
alone, so who may read there is the local rules' word and nobody else's: whom they grant READ gets what the account may
read, be their own credentials at the upstream what they may. What the account brought into the cache is found under
its own identity (``Caller.fingerprint``); it opens nothing outside its prefixes, where a client's own credentials count
as ever. Pushes and deletions are made with the client's own credentials everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from cache.keys import KeyBuilder
from cache.oci.credentials import ANONYMOUS, Credential, DockerConfig
from cache.oci.errors import InvalidCredentials, Unreachable
from cache.oci.redirect import parse_url
from proxy.auth.caller import Caller
from proxy.config import Account, Upstream
from proxy.errors import ConfigError
from proxy.requests.routing import Proxied, Route

CHECK_S = 5.0
RENEW_S = 300.0
"""How often credential helpers are asked: what they give may last no longer than some minutes, and does not say."""
DOUBTED_S = 30.0
"""How soon they are asked again for what the upstream refused."""

log = structlog.get_logger()

FileState = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read last of an upstream's account, when, and from which file. ``credential`` None = not to be had."""

    upstream: Upstream
    credential: Credential | None
    file: FileState | None
    read_at: float


class Accounts:
    """The credentials of all accounts, kept up to date in the background: who asks for one never waits."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._environ = environ
        self._clock = clock
        self._readings: dict[str, Reading] = {}
        self._doubted: set[str] = set()
        self._wake = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def read(self, upstreams: Iterable[Upstream]) -> list[Reading]:
        """The accounts of these upstreams, for ``use``. Raises ConfigError for files that cannot be used."""
        owners = [upstream for upstream in upstreams if upstream.account is not None]
        if problems := await asyncio.to_thread(account_problems, owners):
            raise ConfigError(problems)
        return await asyncio.gather(*map(self._read, owners))

    def use(self, readings: Iterable[Reading]) -> None:
        """Uses these accounts and no other from now on, and looks after them."""
        self._readings = {reading.upstream.name: reading for reading in readings}
        if self._readings and self._watch is None:
            self._watch = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Looks after them no longer."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def reader(self, route: Route, caller: Caller) -> Caller:
        """As whom the caller reads there: by the account whose prefixes cover the repository, else as themselves.

        Raises Unreachable when the account's credential cannot be had.
        """
        if not isinstance(route, Proxied) or route.upstream.account is None:
            return caller
        if not route.upstream.account.covers(route.repository):
            return caller
        reading = self._readings.get(route.upstream.name)
        if reading is None or reading.credential is None:
            raise Unreachable("GET", route.upstream.url, reason="the proxy has no credentials for its own account")
        credential = reading.credential
        identity = KeyBuilder("account").text("upstream", route.upstream.name).text("user", credential.username)
        return replace(caller, credential=credential, account=identity.key().hex[:32])

    def doubt(self, upstream: Upstream) -> None:
        """Notes that the upstream refused the account: its credential is read anew soon."""
        self._doubted.add(upstream.name)
        self._wake.set()

    async def _keep_fresh(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), CHECK_S)
            self._wake.clear()
            due = [reading.upstream for reading in self._readings.values() if await self._is_due(reading)]
            for reading in await asyncio.gather(*map(self._read, due)):
                held = self._readings.get(reading.upstream.name)
                if held is not None and held.upstream.account == reading.upstream.account:
                    self._readings[reading.upstream.name] = reading

    async def _is_due(self, reading: Reading) -> bool:
        age_s = self._clock() - reading.read_at
        doubted = reading.upstream.name in self._doubted or reading.credential is None
        if age_s >= (DOUBTED_S if doubted else RENEW_S):
            return True
        return await asyncio.to_thread(_state, _account(reading.upstream)) != reading.file

    async def _read(self, upstream: Upstream) -> Reading:
        """The account as it is now; where it cannot be had the former credential goes on."""
        read_at = self._clock()
        self._doubted.discard(upstream.name)
        file = await asyncio.to_thread(_state, _account(upstream))
        former = self._readings.get(upstream.name)
        credential = former.credential if former is not None and former.upstream.account == upstream.account else None
        try:
            credential = await asyncio.to_thread(_credential, upstream, self._environ)
        except InvalidCredentials as error:
            log.warning("account_not_usable", upstream=upstream.name, error=str(error))
        return Reading(upstream, credential, file, read_at)


def account_problems(upstreams: Iterable[Upstream]) -> list[str]:
    """What is wrong with the files of these upstreams' accounts; starts no credential helper."""
    problems = []
    for upstream in upstreams:
        try:
            if upstream.account is not None:
                _parse(upstream.account, {})
        except InvalidCredentials as error:
            problems.append(f"upstream {upstream.name!r}: account: {error}")
    return problems


def _account(upstream: Upstream) -> Account:
    assert upstream.account is not None
    return upstream.account


def _state(account: Account) -> FileState | None:
    """What changes when the file does; None when it is not there."""
    try:
        stat = account.config_path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parse(account: Account, environ: Mapping[str, str]) -> DockerConfig:
    """The file. Raises InvalidCredentials."""
    try:
        data = account.config_path.read_bytes()
    except OSError as error:
        raise InvalidCredentials(f"{account.config_path} cannot be read: {error.strerror}") from error
    return DockerConfig.parse(data, account.config_path, environ)


def _credential(upstream: Upstream, environ: Mapping[str, str]) -> Credential:
    """What the file has, or its helper gives, for the upstream's name or else its host. Raises InvalidCredentials."""
    account = _account(upstream)
    config = _parse(account, environ)
    for host in dict.fromkeys((upstream.name, parse_url(upstream.url).authority)):
        if (credential := config.credential_for(host)) != ANONYMOUS:
            return credential
    raise InvalidCredentials(f"{account.config_path} has no credentials for {upstream.name}")
