"""A method, a path and a query become a typed request, or are refused.

The file knows distribution-spec's grammar and nothing else: not where a repository lives, not who asks. Every name,
tag and digest has been checked when a request leaves here, so nothing behind it sees a path that could mean two things.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from multidict import MultiMapping

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest, InvalidReference
from cache.oci.reference import check_repository, check_tag
from proxy.errors import InvalidRequest, TooManyTags, Unknown, Unsupported, no_upload

MAX_TAGS = 100
"""How many tags one push of a manifest may set."""
_CURSOR = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,4096}")  # a query, still encoded (RFC 3986)
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{16,512}")


@dataclass(frozen=True, slots=True)
class Ping:
    """Is this a registry?"""


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """A manifest by tag or digest; ``head`` = only what it is."""

    name: str
    reference: str | Digest
    head: bool


@dataclass(frozen=True, slots=True)
class PutManifest:
    """A manifest to keep, under a tag or its digest; under a digest, ``tags`` may be set to it as well."""

    name: str
    reference: str | Digest
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    """A tag, or a manifest by digest, to remove."""

    name: str
    reference: str | Digest


@dataclass(frozen=True, slots=True)
class ReadBlob:
    """A blob; ``head`` = only its size."""

    name: str
    digest: Digest
    head: bool


@dataclass(frozen=True, slots=True)
class DeleteBlob:
    """A blob to remove from a repository."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class StartUpload:
    """A new blob: to be uploaded, or whole in this request (``digest``), or mounted (``mount``, ``source``)."""

    name: str
    digest: Digest | None
    mount: Digest | None
    source: str | None


@dataclass(frozen=True, slots=True)
class UploadChunk:
    """More bytes of an upload."""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class FinishUpload:
    """The last bytes, if any, and the digest of all."""

    name: str
    upload: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """How much of an upload has arrived?"""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """Forget an upload."""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class ListTags:
    """At most ``count`` tags (None = all) after ``last``; or where ``cursor`` points, which we gave out ourselves."""

    name: str
    count: int | None
    last: str
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ListReferrers:
    """What refers to ``subject``: only what is of ``artifact_type`` unless that is "", and comes after ``last``."""

    name: str
    subject: Digest
    artifact_type: str = ""
    last: Digest | None = None


@dataclass(frozen=True, slots=True)
class ListRepositories:
    """At most ``count`` repositories (None = as many as we give) after ``last``."""

    count: int | None
    last: str


RepositoryRequest = (
    ReadManifest
    | PutManifest
    | DeleteManifest
    | ReadBlob
    | DeleteBlob
    | StartUpload
    | UploadChunk
    | FinishUpload
    | UploadStatus
    | CancelUpload
    | ListTags
    | ListReferrers
)
"""What is asked of one repository."""
Request = Ping | ListRepositories | RepositoryRequest


def parse_request(method: str, raw_path: str, query: MultiMapping[str]) -> Request:
    """The request for a path under ``/v2/``, given still percent-encoded, and its decoded query.

    Raises InvalidRequest for names, tags and digests against the grammar, Unknown for a path that is no endpoint, and
    Unsupported for a method that the endpoint does not have.
    """
    parts = [_decode(part) for part in raw_path.split("/")]
    if parts[:2] != ["", "v2"]:
        raise Unknown("UNSUPPORTED", "not a registry endpoint")
    match parts[2:]:
        case [] | [""]:
            return _require(method in ("GET", "HEAD"), method, Ping())
        case ["_catalog"]:
            return _require(method in ("GET", "HEAD"), method, ListRepositories(_count(query), query.get("last", "")))
        case [*name, "manifests", reference]:
            return _manifest(method, _name(name), _reference(reference), query)
        case [*name, "blobs", "uploads"] | [*name, "blobs", "uploads", ""]:
            return _require(method == "POST", method, _start(_name(name), query))
        case [*name, "blobs", "uploads", upload]:
            return _upload(method, _name(name), upload, query)
        case [*name, "blobs", digest]:
            return _blob(method, _name(name), _digest(digest))
        case [*name, "tags", "list"]:
            return _require(method in ("GET", "HEAD"), method, _tags(_name(name), query))
        case [*name, "referrers", digest]:
            return _require(method in ("GET", "HEAD"), method, _referrers(_name(name), _digest(digest), query))
    raise Unknown("UNSUPPORTED", "this registry has no such endpoint")


def _decode(part: str) -> str:
    """One component, decoded; only characters that need no encoding may have been encoded."""
    if "%" not in part:
        return part
    decoded = unquote(part, encoding="latin-1")
    if not re.fullmatch(r"[A-Za-z0-9._:@+=~-]*", decoded):
        raise InvalidRequest("NAME_INVALID", "the path has percent-encoded characters that could mean two things")
    return decoded


def _require(allowed: bool, method: str, request: Request) -> Request:
    if not allowed:
        raise Unsupported(f"{method} is not supported here")
    return request


def _name(parts: list[str]) -> str:
    try:
        return check_repository("/".join(parts))
    except InvalidReference as error:
        raise InvalidRequest("NAME_INVALID", str(error)) from error


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidRequest("DIGEST_INVALID", str(error)) from error


def _reference(text: str) -> str | Digest:
    if ":" in text:
        return _digest(text)
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise InvalidRequest("MANIFEST_INVALID", str(error)) from error


def _manifest(method: str, name: str, reference: str | Digest, query: MultiMapping[str]) -> Request:
    match method:
        case "GET" | "HEAD":
            return ReadManifest(name, reference, method == "HEAD")
        case "PUT":
            return PutManifest(name, reference, _more_tags(query) if isinstance(reference, Digest) else ())
        case "DELETE":
            return DeleteManifest(name, reference)
    raise Unsupported(f"{method} is not supported on a manifest")


def _blob(method: str, name: str, digest: Digest) -> Request:
    match method:
        case "GET" | "HEAD":
            return ReadBlob(name, digest, method == "HEAD")
        case "DELETE":
            return DeleteBlob(name, digest)
    raise Unsupported(f"{method} is not supported on a blob")


def _start(name: str, query: MultiMapping[str]) -> StartUpload:
    source = query.get("from")
    return StartUpload(
        name,
        _digest(query["digest"]) if "digest" in query else None,
        _digest(query["mount"]) if "mount" in query else None,
        _name(source.split("/")) if source else None,
    )


def _upload(method: str, name: str, upload: str, query: MultiMapping[str]) -> Request:
    if not _UPLOAD_ID.fullmatch(upload):
        raise no_upload()
    match method:
        case "PATCH":
            return UploadChunk(name, upload)
        case "PUT" if "digest" in query:
            return FinishUpload(name, upload, _digest(query["digest"]))
        case "PUT":
            raise InvalidRequest("DIGEST_INVALID", "an upload is finished with ?digest=")
        case "GET":
            return UploadStatus(name, upload)
        case "DELETE":
            return CancelUpload(name, upload)
    raise Unsupported(f"{method} is not supported on an upload")


def _more_tags(query: MultiMapping[str]) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(query.getall("tag", [])))
    if len(tags) > MAX_TAGS:
        raise TooManyTags(f"{len(tags)} tags in one request: expected at most {MAX_TAGS}")
    try:
        return tuple(map(check_tag, tags))
    except InvalidReference as error:
        raise InvalidRequest("MANIFEST_INVALID", str(error)) from error


def _tags(name: str, query: MultiMapping[str]) -> ListTags:
    cursor = query.get("cursor", "")
    if not _CURSOR.fullmatch(cursor):
        raise InvalidRequest("PAGINATION_NUMBER_INVALID", "the cursor is not one of ours")
    return ListTags(name, _count(query), query.get("last", ""), cursor)


def _referrers(name: str, subject: Digest, query: MultiMapping[str]) -> ListReferrers:
    last = _digest(query["last"]) if "last" in query else None
    return ListReferrers(name, subject, query.get("artifactType", ""), last)


def _count(query: MultiMapping[str]) -> int | None:
    count = query.get("n")
    if count is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", count):
        raise InvalidRequest("PAGINATION_NUMBER_INVALID", f"n is {count!r}: expected a number, not negative")
    return int(count)
