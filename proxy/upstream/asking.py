"""Asking upstreams, and what is remembered of their answers: who may read, what is not there, how they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cache.oci.digest import Digest
from cache.oci.errors import Denied, NotFound
from proxy.auth.access import Access
from proxy.auth.caller import Caller
from proxy.requests.routing import Proxied
from proxy.upstream.absences import Absences
from proxy.upstream.sources import Sources
from proxy.upstream.stale import Stale


@dataclass(frozen=True, slots=True)
class Asking:
    """What manifests and blobs have in common when they are asked for."""

    sources: Sources
    access: Access
    absences: Absences
    stale: Stale

    @asynccontextmanager
    async def noting(
        self,
        route: Proxied,
        reference: str | Digest,
        caller: Caller,
        gone: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[None]:
        """Notes what the upstream's answer to the question inside says of who asks, and of what is not there.

        ``gone`` is awaited when the upstream does not have it, unless something was pushed meanwhile. Raises what the
        question raises.
        """
        epoch = self.absences.epoch(route)
        try:
            yield
        except Denied:
            self.access.revoke(route, caller)
            raise
        except NotFound as error:
            if epoch == self.absences.epoch(route):
                self.absences.note(route, reference, caller, error, epoch)
                await gone()
            raise
        self.access.grant(route, caller)
