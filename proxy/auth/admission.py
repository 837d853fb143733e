"""May they do that here: a request, who makes it, where it goes, and the rules become nothing or a refusal.

Who is not known is asked for credentials. Who may not read a repository is told what is told of one that does not
exist; only who may read it hears that it must not be changed.
"""

from __future__ import annotations

from proxy.auth.rights import NOBODY_KNOWN, Right, Rules
from proxy.errors import (
    CredentialsNeeded,
    Forbidden,
    Hidden,
    Refused,
    Unknown,
    no_blob,
    no_manifest,
    no_repository,
    no_upload,
)
from proxy.requests.request import (
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    ListReferrers,
    ListTags,
    ReadBlob,
    ReadManifest,
    RepositoryRequest,
    Request,
    UploadChunk,
    UploadStatus,
)


def needed_right(request: RepositoryRequest) -> Right:
    """What the request needs at its repository."""
    match request:
        case DeleteManifest() | DeleteBlob():
            return Right.DELETE
        case ReadManifest() | ReadBlob() | ListTags() | ListReferrers():
            return Right.READ
    return Right.WRITE


def refusal(
    rules: Rules, who: str, place: str, right: Right, request: RepositoryRequest | None = None
) -> Refused | None:
    """Why ``who`` may not use the right at the repository ``place``; None when they may.

    ``request`` decides how the absence of what it asks for is told.
    """
    if rules.allow(who, place, right):
        return None
    if who == NOBODY_KNOWN:
        return CredentialsNeeded(f"anonymous users may not {right.value} {place}")
    if rules.allow(who, place, Right.READ):
        return Forbidden(f"user {who} may not {right.value} {place}")
    missing = absent(place, request)
    return Hidden(missing.code, str(missing))


def absent(place: str, request: Request | None) -> Unknown:
    """What is said when the repository, or what is asked for in it, does not exist."""
    match request:
        case ReadManifest(reference=reference) | DeleteManifest(reference=reference):
            return no_manifest(place, reference)
        case ReadBlob(digest=digest) | DeleteBlob(digest=digest):
            return no_blob(place, digest)
        case UploadChunk() | FinishUpload() | UploadStatus() | CancelUpload():
            return no_upload()
    return no_repository(place)
