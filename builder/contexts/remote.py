"""The sources of ADD that are fetched: URLs and git repositories, as values (pure).

A URL whose path ends in ``.git`` is a repository, and so is what git alone knows: ``git://``, ``ssh://``,
``git@host:path`` and ``github.com/…``. Behind ``#`` stands a ref, and behind a colon a directory in it; or all of it
stands behind ``?``, as ``ref=…&subdir=…`` (BuildKit's forms). ``#REF#COMMIT`` is Kaniko's.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest

UNNAMED = "__unnamed__"
"""What BuildKit calls a file whose URL has no name for it."""

_USER_INFO = re.compile(r"(?<=://)[^/@?#]*@")
_SSH_SHORT = re.compile(r"git@[^/:]+:")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT_START = re.compile(r"[0-9a-f]{7,64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")
_TRUTHS = {"": True, "1": True, "true": True, "0": False, "false": False}
_QUERY = {
    "ref": ("ref", "{}"),
    "branch": ("ref", "refs/heads/{}"),
    "tag": ("ref", "refs/tags/{}"),
    "subdir": ("directory", "{}"),
    "checksum": ("commit", "{}"),
    "commit": ("commit", "{}"),
    "keep-git-dir": ("keep_git_dir", "{}"),
    "submodules": ("submodules", "{}"),
}
"""What may stand behind the ? of a repository: what it sets, and how."""


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file behind http or https, and the digest that it must have; an archive is unpacked on request only."""

    url: str = field(repr=False)
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
    """A repository at a ref ("" = its HEAD), of it a directory ("" = all); ``commit`` is what the ref must be.

    It does not show itself with what may be secret in the URL.
    """

    repository: str = field(repr=False)
    ref: str = ""
    directory: str = ""
    keep_git_dir: bool = False
    commit: str = ""
    submodules: bool = True
    skip_tls_verify: bool = False

    def __str__(self) -> str:
        return shown(self.repository)


RemoteSource = UrlSource | GitSource


def shown(text: str) -> str:
    """A source without user names, passwords and what stands behind ``?``, which may be secret."""
    return _USER_INFO.sub("", text).partition("?")[0]


def parse_remote(text: str, *, checksum: str = "", keep_git_dir: bool = False, unpack: bool = False) -> RemoteSource:
    """The source that ``text`` names. Raises ValueError for one that cannot be, and for another kind of checksum."""
    if is_git(text.partition("#")[0]):
        source = parse_git(text, keep_git_dir=keep_git_dir)
        if not checksum:
            return source
        if not _COMMIT_START.fullmatch(checksum):
            raise ValueError(f"--checksum={checksum}: expected a commit")
        return replace(source, commit=checksum)
    try:
        digest = Digest.parse(checksum) if checksum else None
    except InvalidDigest as error:
        raise ValueError(f"--checksum: {error}") from error
    if not urlsplit(text).hostname:
        raise ValueError(f"{shown(text)!r} is not a URL: no host in it")
    return UrlSource(text, digest, unpack)


def is_git(place: str) -> bool:
    """True for the URL of a git repository, without what follows ``#``."""
    if place.startswith(("http://", "https://")):
        return urlsplit(place).path.endswith(".git")
    return place.startswith(("git://", "ssh://", "github.com/")) or _SSH_SHORT.match(place) is not None


def parse_git(
    text: str, *, ref: str = "", keep_git_dir: bool = False, submodules: bool = True, skip_tls_verify: bool = False
) -> GitSource:
    """The repository that ``text`` names; what it does not say itself is as given. Raises ValueError."""
    place, _, fragment = text.partition("#")
    repository, _, query = place.partition("?")
    told = {**_from_fragment(fragment), **_from_query(query, fragment)}
    ref = told.get("ref", ref)
    commit = told.get("commit", "")
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise ValueError(f"{ref!r} is not a ref of a git repository")
    if commit and not _COMMIT_START.fullmatch(commit):
        raise ValueError(f"{commit!r} is not a commit")
    return GitSource(
        f"https://{repository}" if repository.startswith("github.com/") else repository,
        ref,
        told.get("directory", "").strip("/"),
        _truth("keep-git-dir", told.get("keep_git_dir"), keep_git_dir),
        commit,
        _truth("submodules", told.get("submodules"), submodules),
        skip_tls_verify,
    )


def _from_fragment(fragment: str) -> dict[str, str]:
    """``REF[#COMMIT][:DIRECTORY]``."""
    before, _, directory = fragment.partition(":")
    ref, _, commit = before.partition("#")
    return {name: text for name, text in (("ref", ref), ("commit", commit), ("directory", directory)) if text}


def _from_query(query: str, fragment: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise ValueError(f"{name!r} behind the ? of a git repository: expected {', '.join(_QUERY)}")
        field_name, form = _QUERY[name]
        if field_name in told or (fragment and field_name in ("ref", "directory")):
            raise ValueError(f"{name!r} behind the ? of a git repository says what is said elsewhere in it")
        told[field_name] = form.format(text)
    return told


def _truth(name: str, text: str | None, default: bool) -> bool:
    if text is None:
        return default
    if text.lower() not in _TRUTHS:
        raise ValueError(f"{name}={text}: expected true or false")
    return _TRUTHS[text.lower()]


def is_commit(ref: str) -> bool:
    """True for the whole name of a commit, which needs no look-up."""
    return _COMMIT.fullmatch(ref) is not None
