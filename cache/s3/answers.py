"""What an S3 server may answer instead of doing what it was asked, told apart by status and error code.

S3Answer(status, code)
├── KeyMissing            404 NoSuchKey: the bucket is there and has no such key
├── UploadMissing         404 NoSuchUpload: completed, aborted or removed by somebody
├── ConditionFailed       412, or 409: met another write of the same key
├── RangeEmpty            416: the object ends before the range begins
├── BytesRefused          the bytes that arrived do not have the checksum that was said
├── CredentialsExpired    others may have been put in their place
├── Throttled             503 SlowDown and the like: later, and less of it
├── ServerFailed          5xx, or no usable answer at all (status 0): perhaps done, perhaps not
└── Refused               everything else: for good
"""

from __future__ import annotations

import re

_BYTES = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})
_BUSY = frozenset({"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"})
_FAILED = frozenset({"InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"})
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")


class S3Answer(Exception):
    """The server refused. ``code`` is its own name for it; nothing else that it said is kept, as it may quote keys."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"the server answered {status} {code}".rstrip() if status else code)
        self.status = status
        self.code = code

    @property
    def temporary(self) -> bool:
        """True when the same request may succeed later. Refused bytes have changed on the way: ours are right."""
        return isinstance(self, Throttled | ServerFailed | BytesRefused)


class KeyMissing(S3Answer):
    """The bucket is there and has no such key."""


class UploadMissing(S3Answer):
    """The multipart upload was completed, aborted or removed by somebody."""


class ConditionFailed(S3Answer):
    """A conditional write was refused (412), or met another write of the same key (409)."""


class RangeEmpty(S3Answer):
    """The object is there, and ends before the range begins (416)."""


class BytesRefused(S3Answer):
    """The bytes that arrived do not have the checksum that came with them."""


class CredentialsExpired(S3Answer):
    """The credentials were good once."""


class Throttled(S3Answer):
    """The server is busy, and wants less."""


class ServerFailed(S3Answer):
    """The server failed, or gave no usable answer (status 0, ``code`` says why): it may have done it all the same."""


class Refused(S3Answer):
    """The server will not do it, however often it is asked."""


def error_code(body: bytes) -> str:
    """The error code in a reply's XML; "" when there is none."""
    found = _CODE.search(body)
    return found[1].decode("ascii") if found else ""


def answer(status: int, code: str) -> S3Answer:
    """The error for a reply that is not a success."""
    return _kind(status, code)(status, code)


def _kind(status: int, code: str) -> type[S3Answer]:
    for codes, kind in ((_BYTES, BytesRefused), (_EXPIRED, CredentialsExpired), (_BUSY, Throttled)):
        if code in codes:
            return kind
    match status, code:
        case _, "NoSuchKey":
            return KeyMissing
        case _, "NoSuchUpload":
            return UploadMissing
        case 416, _:
            return RangeEmpty
        case 429 | 503, _:
            return Throttled
        case ((409 | 412), _) if code not in _FAILED:
            return ConditionFailed
        case 501, _:
            return Refused
    return ServerFailed if status >= 500 or status == 0 or code in _FAILED else Refused
