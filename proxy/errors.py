"""The errors of the proxy.

ProxyError
├── ConfigError(problems)       the proxy cannot start as it was told to
├── ReplicaGone(url)            another replica did not answer
└── Refused(status, code)       a request that gets another answer than success, in distribution-spec's terms
    ├── InvalidRequest          400, with the spec's code for what is wrong
    │   └── BodyBroken          a body that ended early: its client has left
    ├── CredentialsNeeded       401: who asks must say who he is, or is not who he says
    ├── Forbidden               403: who may read this, but not change it; or the proxy's own account was refused
    ├── Unknown                 404
    │   └── Hidden              who may not even know whether it exists
    ├── Unsupported             405
    ├── TooLarge                413
    ├── TooManyTags             414
    ├── OutOfOrder              416: an upload chunk or a range that does not fit
    ├── Misdirected             421: a Host that is no name of ours
    └── Draining                503: the proxy is about to stop

What an upstream or the store refused stays theirs (``cache.oci.errors``, ``cache.errors``); ``proxy.requests.replies``
says what status and code each of them becomes.
"""

from __future__ import annotations

from collections.abc import Sequence


class ProxyError(Exception):
    """Anything that the proxy refuses or cannot do."""


class ConfigError(ProxyError):
    """A configuration with faults; all of them are listed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the proxy's configuration is not usable: " + "; ".join(problems))
        self.problems = tuple(problems)


class ReplicaGone(ProxyError):
    """Another replica that did not answer, or broke off within its answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the replica at {url} is gone: {reason}")


class Refused(ProxyError):
    """An answer other than success; ``code`` is one of distribution-spec's error codes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class InvalidRequest(Refused):
    """A request that cannot be understood or must not be carried out as it stands."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(400, code, message)


class BodyBroken(InvalidRequest):
    """A body that ended before it was complete; who sent it has most likely left."""

    def __init__(self, message: str) -> None:
        super().__init__("BLOB_UPLOAD_INVALID", message)


class CredentialsNeeded(Refused):
    """No credentials, or ones that cannot be read or are wrong.

    ``scope`` is what they are wanted for ("" = nothing special), ``who`` the local user whose password is wrong.
    """

    def __init__(self, message: str, scope: str = "", who: str = "") -> None:
        super().__init__(401, "UNAUTHORIZED", message)
        self.scope = scope
        self.who = who


class Forbidden(Refused):
    """What a rule does not grant to somebody who may read the repository, or no credentials of theirs would open."""

    def __init__(self, message: str) -> None:
        super().__init__(403, "DENIED", message)


class Unknown(Refused):
    """No such repository, manifest, blob or upload (as far as who asks may know)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(404, code, message)


class Hidden(Unknown):
    """A repository that no rule lets who asks read: its reply is the one of a repository that does not exist."""


class Unsupported(Refused):
    """An operation that this proxy does not offer."""

    def __init__(self, message: str) -> None:
        super().__init__(405, "UNSUPPORTED", message)


class TooLarge(Refused):
    """A body that is longer than we take."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "SIZE_INVALID", message)


class TooManyTags(Refused):
    """A push that would set more tags at once than we take."""

    def __init__(self, message: str) -> None:
        super().__init__(414, "SIZE_INVALID", message)


class OutOfOrder(Refused):
    """A chunk that does not begin where the upload stands; ``received_bytes`` is where that is."""

    def __init__(self, message: str, received_bytes: int) -> None:
        super().__init__(416, "BLOB_UPLOAD_INVALID", message)
        self.received_bytes = received_bytes


class Misdirected(Refused):
    """A request for a host that this proxy is not known to be."""

    def __init__(self, message: str) -> None:
        super().__init__(421, "DENIED", message)


class Draining(Refused):
    """Work that would outlast the proxy; another replica, or this one soon, takes it."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "UNKNOWN", message)


def no_manifest(repository: object, reference: object) -> Unknown:
    """There is no such tag or manifest."""
    return Unknown("MANIFEST_UNKNOWN", f"repository {repository} has no manifest {reference}")


def no_blob(repository: object, digest: object) -> Unknown:
    """There is no such blob."""
    return Unknown("BLOB_UNKNOWN", f"repository {repository} has no blob {digest}")


def no_repository(repository: object) -> Unknown:
    """There is no such repository."""
    return Unknown("NAME_UNKNOWN", f"repository {repository} is not known here")


def no_upload() -> Unknown:
    """There is no such upload of who asks."""
    return Unknown("BLOB_UPLOAD_UNKNOWN", "no such upload in this repository, or it was given up")


def not_held(code: str, what: str, who: str) -> Unknown:
    """The answer to somebody who may be served what is held, but not have anything fetched."""
    return Unknown(code, f"{what} is not held here, and {who} may not have it fetched")
