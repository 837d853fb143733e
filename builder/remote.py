"""The sources of ADD that are fetched: URLs and git repositories, as values (pure).

A URL whose path ends in ``.git`` is a repository, and so is what git alone knows: ``git://``, ``ssh://``,
``git@host:path`` and ``github.com/…``. Behind ``#`` stands a ref, and behind a colon a directory in it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest

UNNAMED = "__unnamed__"
"""What BuildKit calls a file whose URL has no name for it."""

_USER_INFO = re.compile(r"(?<=://)[^/@?#]*@")
_SSH_SHORT = re.compile(r"git@[^/:]+:")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file behind http or https, and the digest that it must have; an archive is unpacked on request only."""

    url: str
    checksum: Digest | None = None
    unpack: bool = False

    @property
    def name(self) -> str:
        """What the file is called in a directory."""
        return posixpath.basename(unquote(urlsplit(self.url).path)) or UNNAMED

    def __str__(self) -> str:
        return shown(self.url)


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository at a ref ("" = its HEAD), of it a directory ("" = all); ``commit`` is what the ref must be."""

    repository: str
    ref: str = ""
    directory: str = ""
    keep_git_dir: bool = False
    commit: str = ""

    def __str__(self) -> str:
        return shown(self.repository)


RemoteSource = UrlSource | GitSource


def shown(text: str) -> str:
    """A source without user names, passwords and what stands behind ``?``, which may be secret."""
    return _USER_INFO.sub("", text).partition("?")[0]


def parse_remote(text: str, *, checksum: str = "", keep_git_dir: bool = False, unpack: bool = False) -> RemoteSource:
    """The source that ``text`` names. Raises ValueError for one that cannot be, and for another kind of checksum."""
    place, _, fragment = text.partition("#")
    if _is_git(place):
        ref, _, directory = fragment.partition(":")
        if ref and not _REF.fullmatch(ref):
            raise ValueError(f"{ref!r} is not a ref of a git repository")
        if checksum and not re.fullmatch(r"[0-9a-f]{7,64}", checksum):
            raise ValueError(f"--checksum={checksum}: expected a commit")
        repository = f"https://{place}" if place.startswith("github.com/") else place
        return GitSource(repository, ref, directory.strip("/"), keep_git_dir, checksum)
    try:
        digest = Digest.parse(checksum) if checksum else None
    except InvalidDigest as error:
        raise ValueError(f"--checksum: {error}") from error
    if not urlsplit(text).hostname:
        raise ValueError(f"{shown(text)!r} is not a URL: no host in it")
    return UrlSource(text, digest, unpack)


def _is_git(place: str) -> bool:
    if place.startswith(("http://", "https://")):
        return urlsplit(place).path.endswith(".git")
    return place.startswith(("git://", "ssh://", "github.com/")) or _SSH_SHORT.match(place) is not None


def is_commit(ref: str) -> bool:
    """True for the whole name of a commit, which needs no look-up."""
    return _COMMIT.fullmatch(ref) is not None
