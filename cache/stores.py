"""A store from its URL: the one place that knows all kinds of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cache.disk.filesystem import FilesystemStore
from cache.memory import MemoryStore
from cache.s3.location import S3Location
from cache.store import Store

if TYPE_CHECKING:
    from cache.disk.tier import DiskTier

_EXPECTED = "expected file:///path, s3://bucket/prefix or memory:"


def default_url(environ: Mapping[str, str]) -> str:
    """The store of who names none: ``crossdock`` in the user's cache directory."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(cache) / "crossdock").absolute().as_uri()


def open_store(
    url: str, environ: Mapping[str, str], *, spool_dir: Path | None = None, disk: DiskTier | None = None
) -> Store:
    """The store at ``url``; nothing is read or written yet, so call its ``check`` next.

    ``spool_dir`` is where bytes wait on their way into a bucket, and ``disk`` stands in front of it; both are for
    buckets only. Of ``environ`` only the endpoint and region for S3 are taken; boto3 looks for credentials where the
    AWS tools do.
    Raises ValueError for a URL that is none of ``file:///path``, ``s3://bucket/prefix`` and ``memory:``.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.password is not None:
        raise ValueError(f"a store's URL has neither credentials nor a query: {_EXPECTED}")
    match parts.scheme:
        case "file":
            return _open_filesystem(url, parts.netloc, unquote(parts.path))
        case "s3":
            return _open_s3(_location(parts.netloc, unquote(parts.path), environ), spool_dir, disk)
        case "memory" if url == "memory:":
            return MemoryStore()
        case "":
            raise ValueError(f"{url!r} is a path and not a store's URL: {_EXPECTED}")
        case _:
            raise ValueError(f"{url!r} is not a store's URL: {_EXPECTED}")


def _open_filesystem(url: str, host: str, path: str) -> FilesystemStore:
    if host not in ("", "localhost") or not path.startswith("/"):
        raise ValueError(f"{url!r} is not a file URL: expected file:///path with three slashes and an absolute path")
    return FilesystemStore(Path(path))


def _location(bucket: str, path: str, environ: Mapping[str, str]) -> S3Location:
    return S3Location(
        bucket=bucket,
        prefix=path.strip("/"),
        endpoint_url=environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL", ""),
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", ""),
    )


def _open_s3(location: S3Location, spool_dir: Path | None, disk: DiskTier | None) -> Store:
    from cache.disk.tiered import TieredStore
    from cache.s3.store import S3Store

    bucket = S3Store(location, spool_dir)
    return bucket if disk is None else TieredStore(bucket, disk)
