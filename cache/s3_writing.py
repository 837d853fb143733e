"""Blobs on their way into a bucket. Everything here blocks.

A small blob is one PutObject. A larger one is a multipart upload: under the blob's own key when its digest is known
beforehand, and completed only when the content has proved to have it; else under a temporary key, and copied inside the
bucket once it is known. What a dead writer leaves, uploads and temporary keys, is for the bucket's lifecycle rules.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import threading
from typing import Any

from cache import paths
from cache.errors import CacheError, DigestMismatch
from cache.oci.digest import Digest
from cache.s3_client import Answers, ConditionFailed, S3Client, UploadMissing
from cache.s3_reading import S3OpenBlob, object_size_bytes
from cache.verify import check_expected

CONTENT_TYPE = "application/octet-stream"
COPY_PART_BYTES = 1 << 30
_PUT_ATTEMPTS = 3


def checksum(data: bytes | bytearray) -> str:
    """SHA-256 in the form of ``ChecksumSHA256``: servers that know it refuse other bytes."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class Multipart:
    """A multipart upload to one key."""

    def __init__(self, client: S3Client, operation: str, name: str) -> None:
        self._client = client
        self._operation = operation
        self._name = name
        self._parts: dict[int, dict[str, Any]] = {}
        reply = client.call(
            operation, "create_multipart_upload", name, ContentType=CONTENT_TYPE, ChecksumAlgorithm="SHA256"
        )
        self._id: str = reply["UploadId"]

    def send(self, number: int, data: bytearray) -> None:
        """Uploads a part; several may be under way at once."""
        sha256 = checksum(data)
        reply = self._call("upload_part", PartNumber=number, Body=data, ChecksumSHA256=sha256)
        self._parts[number] = {"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": sha256}

    def copy(self, number: int, source: str, first: int, last: int) -> None:
        """Makes a part of the bytes ``first`` to ``last`` (inclusive) of another stored name."""
        location = self._client.location
        reply = self._call(
            "upload_part_copy",
            PartNumber=number,
            CopySource={"Bucket": location.bucket, "Key": location.key(source)},
            CopySourceRange=f"bytes={first}-{last}",
        )
        result = reply["CopyPartResult"]
        # Not every server computes the checksum of a copied part.
        sums = {name: result[name] for name in ("ETag", "ChecksumSHA256") if name in result}
        self._parts[number] = {"PartNumber": number, **sums}

    def complete(self, size_bytes: int) -> None:
        """Makes the object visible, unless it is there already. Raises StoreUnavailable."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        try:
            self._call(
                "complete_multipart_upload",
                (ConditionFailed, UploadMissing),
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except (ConditionFailed, UploadMissing) as error:
            # Somebody else stored it; or an earlier attempt of this very call did, and its answer was lost.
            self.abort()
            if object_size_bytes(self._client, self._operation, self._name) != size_bytes:
                raise self._client.failure(self._operation, "another write came between, try again") from error

    def abort(self) -> None:
        """Removes the parts, as far as the server lets us: the rest is for the bucket's lifecycle rules."""
        with contextlib.suppress(CacheError):
            self._call("abort_multipart_upload")

    def _call(self, method: str, expect: Answers = (), **parameters: Any) -> dict[str, Any]:
        return self._client.call(self._operation, method, self._name, expect, UploadId=self._id, **parameters)


class S3IncomingBlob:
    """A blob being written. The lock orders a discard behind work whose caller was cancelled meanwhile.

    ``expected`` is the digest, when it is known beforehand.
    """

    def __init__(self, client: S3Client, expected: Digest | None) -> None:
        self._client = client
        self._expected = expected
        self._temporary = "" if expected else paths.temporary(secrets.token_hex(16))
        self._hash = hashlib.new(expected.algorithm if expected else "sha256")
        self._size_bytes = 0
        self._multipart: Multipart | None = None
        self._staged = False
        self._ended = False
        self._lock = threading.Lock()

    def begin_part(self, data: bytearray) -> Multipart:
        """Hashes the next part, and returns the upload to send it to."""
        with self._lock:
            if self._ended:
                raise RuntimeError("the blob's writer has ended: nothing more can be written")
            self._hash.update(data)
            self._size_bytes += len(data)
            if self._multipart is None:
                name = paths.blob(self._expected) if self._expected else self._temporary
                self._multipart = Multipart(self._client, "write a blob", name)
            return self._multipart

    def put_whole(self, data: bytearray, digest: Digest) -> int:
        """Stores a blob that has no parts, and returns its size in bytes. Raises DigestMismatch."""
        check_expected(self._expected, digest)
        with self._lock:
            actual = Digest.of(data, digest.algorithm)
            if actual != digest:
                raise DigestMismatch(digest, actual, len(data))
            self._put(data, digest)
            self._ended = True
        return len(data)

    def finish(self, digest: Digest) -> int:
        """Stores the parts that were sent as a blob, and returns its size in bytes. Raises DigestMismatch."""
        check_expected(self._expected, digest)
        with self._lock:
            hashed = digest.algorithm == self._hash.name
            if hashed:
                self._require(digest, self._hash.hexdigest())
            if self._multipart is not None:
                self._multipart.complete(self._size_bytes)
                self._multipart = None
            if self._temporary:
                self._staged = True
                if not hashed:
                    self._require(digest, self._read_again(digest.algorithm))
                self._copy(digest)
        return self._size_bytes

    def discard(self) -> None:
        """Ends the writing; removes what was not committed."""
        with self._lock:
            self._ended = True
            if self._multipart is not None:
                self._multipart.abort()
                self._multipart = None
            if self._staged:
                with contextlib.suppress(CacheError):
                    self._client.remove("remove a temporary object", self._temporary)
                self._staged = False

    def _require(self, digest: Digest, actual_hex: str) -> None:
        actual = Digest(digest.algorithm, actual_hex)
        if actual != digest:
            raise DigestMismatch(digest, actual, self._size_bytes)

    def _put(self, data: bytearray, digest: Digest) -> None:
        operation, name = f"store {digest}", paths.blob(digest)
        for _ in range(_PUT_ATTEMPTS):
            try:
                self._client.call(
                    operation,
                    "put_object",
                    name,
                    (ConditionFailed,),
                    Body=bytes(data),
                    ContentType=CONTENT_TYPE,
                    ChecksumSHA256=checksum(data),
                    IfNoneMatch="*",
                )
                return
            except ConditionFailed:
                # There already; or, rarely, its writer or somebody who deletes it is at work this very moment.
                if object_size_bytes(self._client, operation, name) == len(data):
                    return
        raise self._client.failure(operation, "other writes came between, try again")

    def _read_again(self, algorithm: str) -> str:
        hash_ = hashlib.new(algorithm)
        reading = S3OpenBlob(self._client, "verify a blob", self._temporary, 0, None)
        try:
            while data := reading.read(1 << 20):
                hash_.update(data)
        finally:
            reading.close()
        return hash_.hexdigest()

    def _copy(self, digest: Digest) -> None:
        copy = Multipart(self._client, f"store {digest}", paths.blob(digest))
        try:
            for number, first in enumerate(range(0, self._size_bytes, COPY_PART_BYTES), 1):
                copy.copy(number, self._temporary, first, min(first + COPY_PART_BYTES, self._size_bytes) - 1)
            copy.complete(self._size_bytes)
        except BaseException:
            copy.abort()
            raise
