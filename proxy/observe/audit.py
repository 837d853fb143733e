"""What a request was, in the words of the log and the metrics; and which requests must be answered for later.

Answered for are pushes, deletions and refusals: who did what where, and who decided. To be asked for credentials where
none came yet is no refusal, it is how every client begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from cache.oci.errors import Denied, RateLimited
from proxy.auth.rights import NOBODY_KNOWN, USER_NAME
from proxy.errors import CredentialsNeeded, Draining, Forbidden, Hidden, Misdirected
from proxy.requests.request import (
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    ListReferrers,
    ListRepositories,
    ListTags,
    Ping,
    PutManifest,
    ReadBlob,
    ReadManifest,
    Request,
    StartUpload,
    UploadChunk,
    UploadStatus,
)

OTHER = "other"
"""The kind of what is no request to a registry."""
_REASONS: Mapping[type[Exception], str] = {
    CredentialsNeeded: "credentials",
    Forbidden: "rule",
    Hidden: "rule",
    Denied: "upstream",
    RateLimited: "rate_limited",
    Misdirected: "host",
    Draining: "draining",
}


@dataclass(frozen=True, slots=True)
class Done:
    """A request that has been answered.

    ``where`` is its repository as rules name it, ``right`` what it needs there ("" = none); ``upstream`` is "" for our
    own repositories; ``error`` is what the reply says.
    """

    asked: Request | None
    method: str
    who: str
    where: str
    right: str
    upstream: str
    status: int
    error: Exception | None = None

    @property
    def kind(self) -> str:
        """What it was for, in one of few words."""
        match self.asked:
            case ReadManifest():
                return "manifest"
            case ReadBlob():
                return "blob"
            case StartUpload() | UploadChunk() | FinishUpload() | UploadStatus() | CancelUpload():
                return "blob_push"
            case PutManifest():
                return "manifest_push"
            case Ping():
                return "ping"
            case ListTags() | ListReferrers() | ListRepositories():
                return "list"
            case DeleteManifest():
                return "manifest_delete"
            case DeleteBlob():
                return "blob_delete"
            case None:
                return OTHER
        assert_never(self.asked)

    @property
    def reference(self) -> str:
        """The tag or digest that it was about; "" when it was about none."""
        match self.asked:
            case ReadManifest(reference=name) | PutManifest(reference=name) | DeleteManifest(reference=name):
                return str(name)
            case ReadBlob(digest=digest) | DeleteBlob(digest=digest) | FinishUpload(digest=digest):
                return str(digest)
            case StartUpload(digest=digest, mount=mount) if digest or mount:
                return str(digest or mount)
        return ""

    @property
    def named(self) -> str:
        """Who asked, or who a wrong password claimed to be; what is no name of a user is not repeated."""
        claimed = self.error.who if isinstance(self.error, CredentialsNeeded) else ""
        return claimed if USER_NAME.fullmatch(claimed) else self.who

    @property
    def refused_by(self) -> str | None:
        """Why it was refused, in one of few words; None when it was not."""
        if isinstance(self.error, CredentialsNeeded) and not self.error.who and self.who in ("", NOBODY_KNOWN):
            return "challenge"
        return _REASONS.get(type(self.error)) if self.error is not None else None


def push_outcome(done: Done) -> tuple[str, str] | None:
    """The kind and outcome (accepted, refused, failed) of a push or deletion that has come to its end; else None."""
    if done.refused_by == "challenge":
        return None
    match done.asked:
        case UploadChunk() | UploadStatus() | CancelUpload():
            return None
        case StartUpload() if done.status == 202:
            return None
        case StartUpload() | FinishUpload() | PutManifest() | DeleteManifest() | DeleteBlob():
            outcome = "accepted" if done.status < 400 else "refused" if done.status < 500 else "failed"
            return done.kind, outcome
    return None


def audit_line(done: Done, digest: str, tags: str) -> tuple[str, dict[str, Any]] | None:
    """The event and the fields of the line that says it for later; None when none is needed.

    ``digest`` and ``tags`` are those of the reply (Docker-Content-Digest, OCI-Tag).
    """
    if done.error is None and isinstance(done.asked, ReadManifest | ReadBlob):
        return None
    refused, pushed = done.refused_by, push_outcome(done)
    if refused in ("credentials", "rule", "upstream", "host"):
        event, decision = "access_refused", "refused"
    elif pushed is not None:
        event, decision = f"{pushed[0]}_answered", pushed[1]
    else:
        return None
    reference = done.reference
    fields: dict[str, Any] = {
        "audit": True,
        "decision": decision,
        "source": refused or done.upstream or "here",
        "who": done.named,
        "method": done.method,
        "repository": done.where,
        "right": done.right,
        "status": done.status,
    }
    named = reference if ":" in reference else ""
    if digest or named:
        fields["digest"] = digest or named
    if reference and not named:
        fields["tags"] = [reference]
    if tags:
        fields["tags"] = [*fields.get("tags", ()), *tags.replace(" ", "").split(",")]
    return event, fields
