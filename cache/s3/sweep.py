"""What dead writers leave in a bucket, and the bucket's own rule against it. For maintenance: this lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from cache import paths
from cache.s3.answers import KeyMissing, Refused, UploadMissing
from cache.s3.bucket import S3Bucket
from cache.store import Unfinished

_NO_RULES = frozenset({"NoSuchLifecycleConfiguration", "NoSuchLifecycle"})


async def objects(
    bucket: S3Bucket, operation: str, prefix: str, after: str = ""
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every object whose stored name begins so and comes after another: that name, and what the listing says of it."""
    token: dict[str, Any] = {"StartAfter": bucket.location.key(after)} if after else {}
    while True:
        reply = await bucket.call(operation, "list_objects_v2", Prefix=bucket.location.key(prefix), **token)
        for found in reply.get("Contents", ()):
            yield bucket.location.name(found["Key"]), found
        if not reply.get("NextContinuationToken"):
            return
        token = {"ContinuationToken": reply["NextContinuationToken"]}


async def unfinished(bucket: S3Bucket) -> Unfinished:
    """What is on its way in now, or was left behind. Raises StoreUnavailable."""
    uploads = sum([1 async for _ in _uploads(bucket)])
    sizes_bytes = [int(found["Size"]) async for _, found in _temporary(bucket)]
    return Unfinished(uploads, len(sizes_bytes), sum(sizes_bytes))


async def sweep(bucket: S3Bucket, before: datetime) -> Unfinished:
    """Aborts the uploads to which nothing was added since a moment, and removes what came in before it.

    Raises StoreUnavailable.
    """
    uploads = 0
    async for found in _uploads(bucket):
        key, upload_id = found["Key"], found["UploadId"]
        if found["Initiated"] < before and not await _has_part_since(bucket, key, upload_id, before):
            uploads += await _abort(bucket, key, upload_id)
    left = [(name, int(found["Size"])) async for name, found in _temporary(bucket) if found["LastModified"] < before]
    for name, _ in left:
        await bucket.request("remove a temporary object", "DELETE", name, expect=(KeyMissing,))
    return Unfinished(uploads=uploads, files=len(left), files_bytes=sum(size_bytes for _, size_bytes in left))


async def abort_rule(bucket: S3Bucket) -> timedelta | None:
    """After how long the bucket itself aborts uploads to the store's names; None when no rule of it does.

    Raises StoreUnavailable when the rules cannot be read: not every server has them, not every account may.
    """
    operation = "read the bucket's lifecycle rules"
    try:
        reply = await bucket.call(operation, "get_bucket_lifecycle_configuration", (Refused,))
    except Refused as error:
        if error.code in _NO_RULES:
            return None
        raise bucket.failure(operation, str(error)) from error
    days = [
        rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        for rule in reply.get("Rules", ())
        if rule.get("Status") == "Enabled" and _covers(rule, bucket.location.key(paths.BLOBS))
    ]
    return timedelta(days=min(days)) if days else None


def _covers(rule: dict[str, Any], key: str) -> bool:
    prefix = rule.get("Prefix", rule.get("Filter", {}).get("Prefix", ""))
    return "AbortIncompleteMultipartUpload" in rule and key.startswith(prefix)


def _temporary(bucket: S3Bucket) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    return objects(bucket, "list what is on its way in", paths.TEMPORARY)


async def _has_part_since(bucket: S3Bucket, key: str, upload_id: str, moment: datetime) -> bool:
    """True when somebody still adds to an upload, however long ago it began."""
    markers: dict[str, Any] = {}
    while True:
        try:
            reply = await bucket.call(
                "list an upload's parts",
                "list_parts",
                (UploadMissing, KeyMissing),
                Key=key,
                UploadId=upload_id,
                **markers,
            )
        except (UploadMissing, KeyMissing):
            return False  # it has ended meanwhile
        if any(part["LastModified"] >= moment for part in reply.get("Parts", ())):
            return True
        if not reply.get("IsTruncated"):
            return False
        markers = {"PartNumberMarker": reply["NextPartNumberMarker"]}


async def _uploads(bucket: S3Bucket) -> AsyncIterator[dict[str, Any]]:
    """Every unfinished upload to the store's names."""
    markers: dict[str, Any] = {}
    prefix = bucket.location.key(f"{paths.VERSION}/")
    while True:
        reply = await bucket.call("list uploads", "list_multipart_uploads", Prefix=prefix, **markers)
        for found in reply.get("Uploads", ()):
            if found["Key"].startswith(prefix):  # not every server heeds the prefix
                yield found
        if not reply.get("IsTruncated"):
            return
        markers = {"KeyMarker": reply["NextKeyMarker"], "UploadIdMarker": reply["NextUploadIdMarker"]}


async def _abort(bucket: S3Bucket, key: str, upload_id: str) -> bool:
    try:
        await bucket.call("abort an upload", "abort_multipart_upload", (UploadMissing,), Key=key, UploadId=upload_id)
    except UploadMissing:
        return False
    return True
