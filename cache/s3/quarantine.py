"""Damaged blobs of a bucket, out of everybody's way: copied by the server, then deleted where they were.

While a damaged object has its name no writer takes its place (``If-None-Match: *``), so nothing but maintenance could
put a good one there between the look and the deletion; and where the server can, it deletes that very object only.
"""

from __future__ import annotations

import structlog

from cache import paths
from cache.oci.digest import Digest
from cache.s3.answers import ConditionFailed, KeyMissing, Refused
from cache.s3.bucket import S3Bucket
from cache.store import Aside

_CHANGED = (ConditionFailed, KeyMissing)
log = structlog.get_logger()


async def put_aside(bucket: S3Bucket, digest: Digest, etag: str) -> Aside:
    """Moves the blob into the quarantine if it still has this ETag. Raises StoreUnavailable."""
    name = paths.blob(digest)
    try:
        aside = await _copied(bucket, digest, etag)
        headers = {"If-Match": bucket.capabilities.etag(etag)} if bucket.capabilities.conditional_delete else {}
        await bucket.request(f"put {digest} aside", "DELETE", name, headers=headers, expect=_CHANGED)
    except _CHANGED:
        return Aside.CHANGED
    return aside


async def _copied(bucket: S3Bucket, digest: Digest, etag: str) -> Aside:
    """Copies the blob. What the server will not copy (over 5 GiB, say) has to go all the same."""
    location = bucket.location
    source = {"Bucket": location.bucket, "Key": location.key(paths.blob(digest))}
    try:
        await bucket.call(
            f"copy {digest} into the quarantine",
            "copy_object",
            (*_CHANGED, Refused),
            CopySource=source,
            CopySourceIfMatch=etag,
            Key=location.key(paths.quarantined(digest)),
        )
    except Refused as error:
        log.warning("damaged_blob_not_kept", digest=str(digest), error=str(error))
        return Aside.DELETED
    return Aside.KEPT
