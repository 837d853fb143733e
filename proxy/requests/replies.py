"""What each error becomes on the wire: one status, one of distribution-spec's codes, and a message for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cache.errors import BlobNotFound, CacheError, CondemnedUnknown, DigestMismatch, SizeMismatch, StoreFull
from cache.oci.errors import Denied, InvalidDigest, Misled, NotFound, OCIError, RateLimited, RegistryError
from proxy.errors import CredentialsNeeded, Draining, OutOfOrder, Refused, Unknown
from proxy.requests.ranges import RangeNotSatisfiable


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A reply that is not success. ``scope`` is not None when it is a 401 that needs a challenge."""

    status: int
    code: str
    message: str
    scope: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The JSON of distribution-spec's "Error Codes"."""
        return msgspec.json.encode({"errors": [{"code": self.code, "message": self.message, "detail": None}]})


def error_reply(
    error: Refused | OCIError | CacheError, upstream: str, scope: str, absent: Unknown | None = None
) -> ErrorReply:
    """The reply for an error that we raised, that an upstream answered with, or that the store met.

    ``upstream`` names the upstream of the request in messages ("" = none); ``scope`` is what a client that must give
    credentials would need. ``absent`` is what a client that reads is told of what is not there: such a client hears
    nothing in the upstream's own words, since an upstream is asked in one way for what we hold and in another for what
    we do not, and its words would tell which it was.
    """
    match error:
        case Refused():
            return _refused(error, scope)
        case RegistryError():
            return _upstream(error, upstream, scope, absent)
        case DigestMismatch() | SizeMismatch():
            return ErrorReply(400, "DIGEST_INVALID", str(error))
        case BlobNotFound():
            return ErrorReply(404, "BLOB_UNKNOWN", str(error))
        case StoreFull():
            return ErrorReply(507, "UNKNOWN", "the proxy's store is full")
        case CondemnedUnknown():
            why = "no push is taken now: the store does not say which content is about to be deleted"
            return ErrorReply(503, "UNKNOWN", why, headers={"Retry-After": "5"})
        case CacheError():
            return ErrorReply(503, "UNKNOWN", "the proxy's store does not work", headers={"Retry-After": "5"})
        case InvalidDigest():
            return ErrorReply(400, "DIGEST_INVALID", str(error))
    return ErrorReply(400, "MANIFEST_INVALID", str(error))


def _refused(error: Refused, scope: str) -> ErrorReply:
    match error:
        case CredentialsNeeded():
            return ErrorReply(401, error.code, str(error), scope=error.scope or scope)
        case RangeNotSatisfiable():
            headers = {"Content-Range": f"bytes */{error.size_bytes}"}
            return ErrorReply(416, error.code, str(error), headers=headers)
        case OutOfOrder():
            headers = {"Range": f"0-{max(0, error.received_bytes - 1)}"}
            return ErrorReply(416, error.code, str(error), headers=headers)
        case Draining():
            return ErrorReply(error.status, error.code, str(error), headers={"Retry-After": "1"})
    return ErrorReply(error.status, error.code, str(error))


_CODES = {400: "UNSUPPORTED", 403: "DENIED", 404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}
_ABSENT = {"/blobs/uploads/": "BLOB_UPLOAD_UNKNOWN", "/blobs/": "BLOB_UNKNOWN", "/manifests/": "MANIFEST_UNKNOWN"}


def _implied_code(error: RegistryError) -> str:
    """What the status means for what the upstream was asked, where it does not say itself."""
    absent = next((code for part, code in _ABSENT.items() if part in error.url), None)
    return absent if absent and error.status == 404 else _CODES.get(error.status or 0, "UNKNOWN")


def _upstream(error: RegistryError, upstream: str, scope: str, absent: Unknown | None) -> ErrorReply:
    """4xx are the upstream's answer and stay what they are; its 5xx and nonsense become 502, silence 503."""
    if absent is not None and isinstance(error, NotFound):
        return ErrorReply(404, absent.code, str(absent))
    details = error.details if absent is None else ()
    code = details[0].code if details else _implied_code(error)
    said = "; ".join(map(str, details)) or error.reason
    message = f"{upstream}: {said}" if said else f"{upstream} answered {error.status}"
    wait = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s is not None else {}
    match error:
        case RateLimited():
            return ErrorReply(429, "TOOMANYREQUESTS", message, headers=wait)
        case Denied() if error.status == 401:
            return ErrorReply(401, "UNAUTHORIZED", message, scope=scope)
        case Denied() | NotFound():
            return ErrorReply(error.status or 403, code, message)
        case Misled():
            return ErrorReply(502, "UNKNOWN", message)
    if error.status is None:
        return ErrorReply(
            503, "UNKNOWN", f"{upstream} cannot be reached: {error.reason}", headers=wait or {"Retry-After": "5"}
        )
    if error.status < 400 or error.status >= 500:  # success that is none, and redirects that lead nowhere
        return ErrorReply(502, "UNKNOWN", f"{upstream} answered {error.status}: {said}", headers=wait)
    return ErrorReply(error.status, code, message)
