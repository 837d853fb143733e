"""Who asks, as the services see it."""

from __future__ import annotations

from dataclasses import dataclass

from cache.oci.credentials import ANONYMOUS, Credential
from proxy.auth.rights import NOBODY_KNOWN


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is done.

    ``credential`` is what upstreams are shown, ``who`` the name in rules and in the log. ``may_fetch`` says whether
    content that is not held may be fetched from an upstream for them; ``patient`` callers (warming) leave an upstream's
    rate limit to the others. ``account`` names the proxy's own account where the credential is that
    (``proxy.auth.accounts``).
    """

    credential: Credential = ANONYMOUS
    who: str = NOBODY_KNOWN
    may_fetch: bool = True
    patient: bool = False
    account: str = ""

    @property
    def fingerprint(self) -> str:
        """A name for this identity at an upstream in the keys of caches: never for logs.

        An account keeps its name when its credential is renewed.
        """
        return self.account or self.credential.fingerprint


NOBODY = Caller()
"""Somebody without credentials."""
