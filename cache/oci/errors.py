"""The errors of the OCI layer.

OCIError
├── InvalidDigest, InvalidReference, InvalidManifest    bad input; each also a ValueError
├── InvalidCredentials                              docker's config.json or a credential helper cannot be used
└── RegistryError(method, url, status, details)         a registry said no, or said nothing
    ├── NotFound                                        404
    ├── Denied                                          401 and 403
    ├── RateLimited(retry_after_s)                      429
    ├── InvalidReply                                    a reply that cannot be what was asked for
    ├── Misled                                          it sent us where we must not go
    └── Unreachable                                     no answer at all: DNS, connect, TLS, reset, time-out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TEMPORARY_STATUSES = frozenset({408, 429, 499, 500, 502, 503, 504, 522})


class OCIError(Exception):
    """Anything that the OCI layer refuses or cannot do."""


class InvalidDigest(OCIError, ValueError):
    """A digest that is not ``algorithm:hex`` with a known algorithm and the right length."""


class InvalidReference(OCIError, ValueError):
    """An image reference that does not follow the distribution grammar."""


class InvalidManifest(OCIError, ValueError):
    """Bytes that are not a manifest, an index or an image config of a kind that we know."""


class InvalidCredentials(OCIError, ValueError):
    """A docker ``config.json`` or a credential helper that cannot be used; never says a secret."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One entry of the ``errors`` list in a registry's reply (distribution-spec, "Error Codes")."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class RegistryError(OCIError):
    """A request to a registry that failed.

    ``url`` never carries a query or credentials; ``status`` is None when no reply came.
    ``retry_after_s`` is how long the registry asked us to wait, where it did.
    """

    retry_after_s: float | None = None

    def __init__(
        self,
        method: str,
        url: str,
        status: int | None = None,
        details: Sequence[ErrorDetail] = (),
        reason: str = "",
    ) -> None:
        self.method = method
        self.url = url.split("?", 1)[0]
        self.status = status
        self.details = tuple(details)
        self.reason = reason
        super().__init__(self._message())

    def _message(self) -> str:
        said = "; ".join(part for part in (self.reason, *map(str, self.details)) if part)
        status = f" answered {self.status}" if self.status is not None else " failed"
        return f"{self.method} {self.url}{status}" + (f": {said}" if said else "")

    @property
    def temporary(self) -> bool:
        """True when the same request may well succeed a little later."""
        return self.status is None or self.status in TEMPORARY_STATUSES


class NotFound(RegistryError):
    """The registry has no such repository, manifest, blob or upload (404)."""


class Denied(RegistryError):
    """The registry refused the credentials, or wanted some (401), or they do not suffice (403).

    ``challenge`` is the registry's ``WWW-Authenticate``, "" when it sent none.
    """

    challenge: str = ""


class RateLimited(RegistryError):
    """The registry asked us to slow down (429)."""

    def __init__(
        self,
        method: str,
        url: str,
        details: Sequence[ErrorDetail] = (),
        *,
        retry_after_s: float | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(method, url, 429, details, reason)
        self.retry_after_s = retry_after_s


class InvalidReply(RegistryError):
    """A reply that is none: a page for people, wrong bytes, no length, a redirect without end.

    It says nothing about the content.
    """


class Misled(RegistryError):
    """The registry sent us where we must not go: a redirect, an upload's place or a token server."""

    @property
    def temporary(self) -> bool:
        return False


class Unreachable(RegistryError):
    """No usable reply: name resolution, connection, TLS or time-out (``timed_out``)."""

    timed_out: bool = False
