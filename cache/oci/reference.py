"""Image references: ``[host/]repository[:tag][@digest]`` (distribution's reference grammar).

Docker Hub's defaults apply as every client applies them: a first component without a dot, a colon or the name
``localhost`` is not a host but part of a Hub repository, and a Hub name of one component lies under ``library/``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest, InvalidReference

DOCKER_HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
"""Where Docker Hub's API is."""
HUB_ALIASES = frozenset({"docker.io", "index.docker.io", HUB_HOST, "registry.hub.docker.com"})
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")


def check_repository(name: str) -> str:
    """``name`` itself when it is a legal repository name. Raises InvalidReference."""
    if len(name) > MAX_NAME_LENGTH or not _REPOSITORY.fullmatch(name):
        raise InvalidReference(
            f"{name!r} is not a repository name: expected lower-case components joined by '/',"
            f" at most {MAX_NAME_LENGTH} characters"
        )
    return name


def check_tag(tag: str) -> str:
    """``tag`` itself when it is a legal tag. Raises InvalidReference."""
    if not _TAG.fullmatch(tag):
        raise InvalidReference(f"{tag!r} is not a tag: expected 1 to 128 of A-Z a-z 0-9 _ . - not starting with . or -")
    return tag


def canonical_host(host: str) -> str:
    """The host in lower case; Docker Hub's aliases become ``docker.io``."""
    lowered = host.lower()
    return DOCKER_HUB if lowered in HUB_ALIASES else lowered


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry. ``host`` is ``name[:port]``; of ``tag`` and ``digest`` the latter wins."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise InvalidReference(f"{self.host!r} is not a registry host")
        check_repository(self.repository)
        if self.tag is not None:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference in ``text``; ``:latest`` when it has neither tag nor digest. Raises InvalidReference."""
        try:
            return cls._parse(text)
        except (InvalidReference, InvalidDigest) as error:
            raise InvalidReference(f"invalid image reference {text!r}: {error}") from error

    @classmethod
    def _parse(cls, text: str) -> Reference:
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        host, repository = _split_host(rest)
        repository, colon, tag_text = repository.partition(":")
        tag = tag_text if colon else None
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        if host == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(host, repository, tag, digest)

    @property
    def identifier(self) -> str:
        """What goes behind ``/manifests/``: the digest where there is one, else the tag."""
        if self.digest is not None:
            return str(self.digest)
        return self.tag or DEFAULT_TAG

    @property
    def name(self) -> str:
        """``host/repository``, without tag and digest."""
        return f"{self.host}/{self.repository}"

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository, pinned to a digest."""
        return replace(self, tag=None, digest=digest)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at another tag."""
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first.lower() == "localhost"):
        return canonical_host(first), rest
    return DOCKER_HUB, text
