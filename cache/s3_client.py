"""One bucket through boto3, with the errors of a store instead of boto3's.

Everything here blocks. boto3 is imported at the first call and not with this module: that takes longer than a build
whose every step hits.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from cache.errors import StoreFull, StoreUnavailable

MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 4
_FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"})
_CONDITION_STATUSES = frozenset({409, 412})


class KeyMissing(Exception):
    """The bucket is there and has no such key (for a HEAD: perhaps there is no bucket either)."""


class ConditionFailed(Exception):
    """A conditional write was refused (412), or met another write of the same key (409)."""


class RangeEmpty(Exception):
    """The object is there, and ends before the range begins (416)."""


class UploadMissing(Exception):
    """The multipart upload was completed, aborted or removed by somebody."""


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where a store is. An empty endpoint or region is looked for where the AWS tools look."""

    bucket: str
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise ValueError(f"{self.bucket!r} is not the name of a bucket")
        if self.prefix != self.prefix.strip("/"):
            raise ValueError(f"a prefix neither begins nor ends with '/', got {self.prefix!r}")

    @property
    def url(self) -> str:
        """The location as a person would write it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of a stored name."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def name(self, key: str) -> str:
        """The stored name of a key; the inverse of ``key``."""
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key


Answers = tuple[type[Exception], ...]


class S3Client:
    """Calls on the objects of one bucket; for use by many threads."""

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._made: Any = None

    def call(self, operation: str, method: str, name: str, expect: Answers = (), **parameters: Any) -> dict[str, Any]:
        """The reply of the boto3 method for the object of a stored name.

        ``operation`` is what an error says that was tried. Raises those of KeyMissing, ConditionFailed, RangeEmpty and
        UploadMissing that ``expect`` names, and StoreUnavailable for everything else.
        """
        client = self._client()
        try:
            reply = getattr(client, method)(Bucket=self.location.bucket, Key=self.location.key(name), **parameters)
        except _foreign_errors() as error:
            answer = _answer(error, method)
            if answer is not None and answer in expect:
                raise answer from error
            raise self._unavailable(error, operation) from error
        return cast(dict[str, Any], reply)

    def remove(self, operation: str, name: str) -> None:
        """Removes an object if it is there."""
        with contextlib.suppress(KeyMissing):
            self.call(operation, "delete_object", name, (KeyMissing,))

    def list_page(self, operation: str, prefix: str, token: str) -> tuple[list[dict[str, Any]], str]:
        """Up to 1,000 objects whose stored names begin so, and the token of the next page ("" = this is the last)."""
        parameters = {"ContinuationToken": token} if token else {}
        client = self._client()
        try:
            reply = client.list_objects_v2(Bucket=self.location.bucket, Prefix=self.location.key(prefix), **parameters)
        except _foreign_errors() as error:
            raise self._unavailable(error, operation) from error
        return reply.get("Contents", []), reply.get("NextContinuationToken", "")

    def read(self, operation: str, body: Any, size_bytes: int) -> bytes:
        """At most ``size_bytes`` of a reply's body; empty at its end. Raises StoreUnavailable."""
        try:
            return cast(bytes, body.read(size_bytes))
        except _foreign_errors() as error:
            raise self._unavailable(error, operation) from error

    def failure(self, operation: str, reason: str) -> StoreUnavailable:
        """The store's error for something that boto3 does not take for one."""
        return StoreUnavailable(self.location.url, operation, reason)

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._made is not None:
                self._made.close()

    def _unavailable(self, error: Exception, operation: str) -> StoreUnavailable:
        """Our error for boto3's. Of the server's words only its error code goes in: the rest may quote keys."""
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            return self.failure(operation, self._reason(error))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(response.get("Error", {}).get("Code", ""))
        kind = StoreFull if code in _FULL or status == 507 else StoreUnavailable
        return kind(self.location.url, operation, f"the server answered {status} {code}".rstrip())

    def _reason(self, error: Exception) -> str:
        from botocore import exceptions

        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return "no AWS credentials were found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role)"
        endpoint = urlsplit(self._made.meta.endpoint_url).netloc.rpartition("@")[2] if self._made else "the server"
        if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | OSError):
            return f"no usable answer from {endpoint} ({type(error).__name__})"
        return type(error).__name__

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                errors: tuple[type[Exception], ...] = (
                    *_foreign_errors(),
                    ValueError,
                )  # ValueError: the endpoint is no URL
                try:
                    self._made = _make_client(self.location)
                except errors as error:
                    raise self._unavailable(error, "be opened") from error
            return self._made


def _make_client(location: S3Location) -> Any:
    import boto3.session
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        max_pool_connections=MAX_CONNECTIONS,
        tcp_keepalive=True,
        # Older servers refuse the checksums in trailers that boto3 would send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Servers other than Amazon's rarely have a host name for every bucket.
        s3={"addressing_style": "path"} if location.endpoint_url else {},
    )
    # A session of our own: the default one is shared with whoever else uses boto3 in this process, and not by threads.
    return boto3.session.Session().client(
        "s3", endpoint_url=location.endpoint_url or None, region_name=location.region or None, config=config
    )


def _foreign_errors() -> tuple[type[Exception], ...]:
    """What boto3 lets out: its own errors, and while a body is read also those of urllib3 and of sockets."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, HTTPError, OSError)


def _answer(error: Exception, method: str) -> type[Exception] | None:
    """Which of the answers that a caller may expect this is, if any."""
    response = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    if code == "NoSuchKey" or (status == 404 and method == "head_object"):
        return KeyMissing
    if code == "NoSuchUpload":
        return UploadMissing
    if status in _CONDITION_STATUSES:
        return ConditionFailed
    return RangeEmpty if status == 416 else None
