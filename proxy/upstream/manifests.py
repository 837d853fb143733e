"""Manifests of upstreams' repositories.

By digest they never change: held, they are served for ever to whom the upstream lets read the repository. A tag is
trusted for a short time, then the upstream is asked where it points (a conditional HEAD, which costs no quota); the
manifest is fetched only when that is somewhere new. All kinds are always asked for, so what is held does not depend on
who asked first, and bytes and media type are kept exactly.

What a manifest names does not become readable with it: see ``proxy.transfer.blobs``.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog
from cachetools import TTLCache

from cache.catalog import TagEntry
from cache.oci import media_types
from cache.oci.client import ManifestReply, RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import ErrorDetail, NotFound, RegistryError
from cache.singleflight import SingleFlight
from proxy.auth.caller import Caller
from proxy.errors import Unknown, not_held
from proxy.requests.outcome import BYPASS, HIT, MISS, Cached, Outcome
from proxy.requests.routing import Proxied
from proxy.upstream.asking import Asking
from proxy.upstream.freshness import Standing, Tag, judge_tag
from proxy.upstream.held import HeldManifest, HeldManifests

SEEN_TTL_S = 60.0
MAX_SEEN = 100_000
MAX_REFRESHING = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest's exact bytes and type, and how they were had."""

    descriptor: Descriptor
    raw: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class FoundDescriptor:
    """What a manifest is, without its bytes."""

    descriptor: Descriptor
    outcome: Outcome


class Manifests:
    """The manifests and tags of all upstreams."""

    def __init__(self, held: HeldManifests, ask: Asking) -> None:
        self._held = held
        self._ask = ask
        self._fetches: SingleFlight[tuple[object, ...], FoundManifest] = SingleFlight()
        self._checks: SingleFlight[tuple[object, ...], Descriptor] = SingleFlight()
        self._refreshing: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._seen: TTLCache[tuple[str, str, Digest], Descriptor] = TTLCache(MAX_SEEN, SEEN_TTL_S)

    async def find(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundManifest:
        """The manifest, held or fetched.

        Raises NotFound, Denied or another RegistryError as the upstream does, and Unknown when it is not held and the
        caller may not have it fetched.
        """
        if isinstance(reference, Digest):
            return await self._find_digest(route, reference, caller)
        return await self._find_tag(route, reference, caller)

    async def stat(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundDescriptor:
        """What the manifest is, without fetching it. Raises as ``find``.

        Who pushes asks this as well, by digest, so that answer is the upstream's, at most SEEN_TTL_S old.
        """
        if isinstance(reference, Digest):
            return await self._stat_digest(route, reference, caller)
        entry = await self._held.tag(route, reference)
        known = entry.descriptor if entry is not None else None
        if known is not None and self._may_answer(route, reference, caller, entry):
            return FoundDescriptor(known, self._hit(entry))
        try:
            found = await self._check(route, reference, caller, known)
            return FoundDescriptor(found, Outcome(Cached.HIT if found == known else Cached.MISS, 0.0))
        except RegistryError as error:
            if known is None:
                raise
            return FoundDescriptor(known, self._stale_tag(route, caller, error, reference, entry))

    async def keep(self, route: Proxied, reference: str | Digest, descriptor: Descriptor, raw: bytes) -> None:
        """Notes what the upstream has just taken under a tag or digest.

        A store that fails costs the caching and is logged; nothing older is served afterwards.
        """
        self._ask.absences.end(route, reference)
        self._ask.absences.end(route, descriptor.digest)
        await self._keep(route, reference, descriptor, raw)

    async def forget(self, route: Proxied, reference: str | Digest) -> None:
        """Forgets a tag or a manifest: the next request asks the upstream. Raises StoreUnavailable."""
        self._ask.absences.end(route, reference)
        if isinstance(reference, Digest):
            self._seen.pop((route.namespace, route.repository, reference), None)
        await self._held.forget(route, reference)

    async def close(self) -> None:
        """Ends what is asked in the background."""
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._checks.close()
        await self._fetches.close()

    async def _find_tag(self, route: Proxied, tag: str, caller: Caller) -> FoundManifest:
        entry = await self._held.tag(route, tag)
        held = await self._held.manifest(route, entry.descriptor.digest) if entry is not None else None
        if held is not None and self._may_answer(route, tag, caller, entry):
            return _found(held, self._hit(entry))
        try:
            return await self._revalidate(route, tag, caller, held)
        except RegistryError as error:
            if held is None:
                raise
            return _found(held, self._stale_tag(route, caller, error, tag, entry))

    async def _revalidate(self, route: Proxied, tag: str, caller: Caller, held: HeldManifest | None) -> FoundManifest:
        """The manifest that the tag points to by the upstream's word; fetched only when we do not hold it."""
        if held is None:
            return await self._fetch(route, tag, caller)
        descriptor = await self._check(route, tag, caller, held.descriptor)
        again = held if descriptor == held.descriptor else await self._held.manifest(route, descriptor.digest)
        if again is not None:
            return _found(again, Outcome(Cached.HIT, 0.0))
        return await self._fetch(route, tag, caller)

    def _may_answer(self, route: Proxied, tag: str, caller: Caller, entry: TagEntry | None) -> bool:
        """True when what we know of the tag is an answer; it is checked meanwhile where it is no longer fresh."""
        freshness = route.upstream.freshness
        checked_at = entry.checked_at if entry is not None else None
        readable = self._ask.access.readable(route, caller)
        verdict = judge_tag(checked_at, self._held.now(), freshness.ttl_of(tag), freshness.revalidate_s, readable)
        if verdict is Tag.REVALIDATE:
            self._refresh(route, tag, caller)
        return verdict is not Tag.ASK

    def _refresh(self, route: Proxied, tag: str, caller: Caller) -> None:
        """Asks for the tag in the background: once at a time for each, for so many at once."""
        key = (route.namespace, route.repository, tag)
        if key in self._refreshing or len(self._refreshing) >= MAX_REFRESHING:
            return
        task = asyncio.create_task(self._refresh_now(route, tag, caller), name=f"refresh {route}:{tag}")
        self._refreshing[key] = task
        task.add_done_callback(lambda _: self._refreshing.pop(key, None))

    async def _refresh_now(self, route: Proxied, tag: str, caller: Caller) -> None:
        entry = await self._held.tag(route, tag)
        held = await self._held.manifest(route, entry.descriptor.digest) if entry is not None else None
        try:
            await self._revalidate(route, tag, caller, held)
        except (RegistryError, Unknown) as error:
            log.info("tag_not_refreshed", repository=str(route), tag=tag, reason=str(error))

    async def _find_digest(self, route: Proxied, digest: Digest, caller: Caller) -> FoundManifest:
        held = await self._held.manifest(route, digest)
        if held is None:
            return await self._fetch(route, digest, caller)
        if self._ask.access.readable(route, caller):
            return _found(held, HIT)
        try:
            await self._check(route, digest, caller, held.descriptor)
        except RegistryError as error:
            return _found(held, self._ask.stale.outcome(route, caller, error))
        return _found(held, HIT)

    async def _stat_digest(self, route: Proxied, digest: Digest, caller: Caller) -> FoundDescriptor:
        known = await self._held.descriptor(route, digest)
        seen = (route.namespace, route.repository, digest) in self._seen
        if known is not None and seen and self._ask.access.readable(route, caller):
            return FoundDescriptor(known, HIT)
        try:
            return FoundDescriptor(await self._check(route, digest, caller, None), MISS)
        except RegistryError as error:
            if known is None:
                raise
            return FoundDescriptor(known, self._ask.stale.outcome(route, caller, error))

    async def _keep(self, route: Proxied, reference: str | Digest, descriptor: Descriptor, raw: bytes) -> None:
        self._seen[(route.namespace, route.repository, descriptor.digest)] = descriptor
        await self._held.keep(route, descriptor, raw)
        if isinstance(reference, str):
            await self._held.point(route, reference, descriptor)

    async def _keep_reply(self, route: Proxied, reference: str | Digest, reply: ManifestReply, epoch: int) -> bool:
        """Keeps what the upstream has shown; returns whether it did.

        Not what is of a kind that we do not know, and not what was asked for before the repository was changed.
        """
        known = media_types.is_manifest(reply.media_type)
        if not known or epoch != self._ask.absences.epoch(route):
            return False
        await self._keep(route, reference, reply.descriptor, reply.raw)
        return True

    async def _fetch(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundManifest:
        """The manifest from the upstream; one question for all of the same identity who ask at a time."""
        self._ask.absences.check(route, reference, caller)
        if not caller.may_fetch:
            if not self._ask.access.readable(route, caller):
                await self._check(route, reference, caller, None)  # who is not let in learns nothing of what is held
            raise not_held("MANIFEST_UNKNOWN", f"{route} manifest {reference}", caller.who)
        epoch = self._ask.absences.epoch(route)

        async def head(client: RegistryClient) -> object:
            return await client.check_manifest(route.repository, str(reference))

        async def get(client: RegistryClient) -> ManifestReply:
            return await client.get_manifest(route.repository, str(reference))

        async def of_upstream() -> ManifestReply:
            async with self._noting(route, reference, caller):
                return await get(self._ask.sources.upstream(route, caller))

        async def fetch() -> FoundManifest:
            tag = isinstance(reference, str)
            answer = await self._ask.sources.fetch(route, caller, head, get, of_upstream, tag=tag)
            reply = answer.value
            kept = (tag or answer.proven) and await self._keep_reply(route, reference, reply, epoch)
            outcome = Outcome(Cached.MISS, 0.0 if isinstance(reference, str) else None) if kept else BYPASS
            return FoundManifest(reply.descriptor, reply.raw, outcome)

        # Who may wait is not to be refused for somebody who may not.
        key = (route.namespace, route.repository, reference, caller.fingerprint, caller.patient, epoch)
        return await self._fetches.run(key, fetch)

    async def _check(
        self, route: Proxied, reference: str | Digest, caller: Caller, known: Descriptor | None
    ) -> Descriptor:
        """What the upstream has there now, perhaps what is ``known``; one question as in ``_fetch``."""
        self._ask.absences.check(route, reference, caller)
        epoch = self._ask.absences.epoch(route)

        async def head(client: RegistryClient) -> Descriptor | ManifestReply | None:
            return await client.check_manifest(route.repository, str(reference), known)

        async def of_upstream() -> Descriptor | ManifestReply:
            async with self._noting(route, reference, caller):
                found = await head(self._ask.sources.upstream(route, caller))
                if found is None:
                    raise manifest_unknown(route, reference)
                return found

        async def ask() -> Descriptor:
            tag = isinstance(reference, str)
            answer = await self._ask.sources.check(route, caller, head, of_upstream, tag=tag)
            found = answer.value
            if not tag and not answer.proven:
                return found.descriptor if isinstance(found, ManifestReply) else found
            if isinstance(found, ManifestReply):
                await self._keep_reply(route, reference, found, epoch)
                return found.descriptor
            if epoch == self._ask.absences.epoch(route):
                self._seen[(route.namespace, route.repository, found.digest)] = found
                if isinstance(reference, str):
                    await self._held.point(route, reference, found)
            return found

        key = (route.namespace, route.repository, reference, caller.fingerprint, caller.patient, epoch)
        return await self._checks.run(key, ask)

    def _noting(self, route: Proxied, reference: str | Digest, caller: Caller) -> AbstractAsyncContextManager[None]:
        async def gone() -> None:
            if self._ask.access.standing(route, caller) is not Standing.UNKNOWN:  # else it may only be hidden from them
                await self._held.forget(route, reference)

        return self._ask.noting(route, reference, caller, gone)

    def _stale_tag(
        self, route: Proxied, caller: Caller, error: RegistryError, tag: str, entry: TagEntry | None
    ) -> Outcome:
        """As ``Stale.outcome``, for a tag that was checked when ``entry`` says."""
        age_s = max(0.0, self._held.now() - entry.checked_at) if entry is not None else 0.0
        return self._ask.stale.outcome(route, caller, error, age_s - route.upstream.freshness.ttl_of(tag), age_s)

    def _hit(self, entry: TagEntry | None) -> Outcome:
        return Outcome(Cached.HIT, self._held.now() - entry.checked_at if entry is not None else None)


def _found(held: HeldManifest, outcome: Outcome) -> FoundManifest:
    return FoundManifest(held.descriptor, held.raw, outcome)


def manifest_unknown(route: Proxied, reference: str | Digest) -> NotFound:
    """What an upstream's 404 to a HEAD means; such a reply has no body that says it."""
    url = f"{route.upstream.url}/v2/{route.repository}/manifests/{reference}"
    return NotFound("HEAD", url, 404, (ErrorDetail("MANIFEST_UNKNOWN", f"{route} has no manifest {reference}"),))
