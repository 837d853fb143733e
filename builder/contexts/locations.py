"""Where a build context can lie, as values; what ``--context`` and ``--build-context`` name (pure).

DIRECTORY, dir://PATH                             a directory of this machine
tar://FILE, tar://stdin, -                        a tar, compressed or not
https://…                                         a tar behind http or https
s3://BUCKET/KEY, gs://BUCKET/NAME                 a tar in a bucket
https://ACCOUNT.blob.core.windows.net/…           a tar in Azure's blob storage
git://…, ssh://…, git@…, https://….git            a git repository
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.contexts.remote import GitSource, is_git, parse_git, shown
from cache.oci.reference import Reference

DEFAULT_OBJECT = "context.tar.gz"
"""What Kaniko takes from a bucket when no object is named."""

_AZURE = re.compile(r"[a-z0-9-]+\.blob\.core\.(windows\.net|chinacloudapi\.cn|cloudapi\.de|usgovcloudapi\.net)")
_GIT_SCHEMES = {"https": "https://", "http": "http://", "git": "git://"}


@dataclass(frozen=True, slots=True)
class DirectoryContext:
    """A directory of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ImageContext:
    """``docker-image://REFERENCE``: an image of a registry."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class LayoutContext:
    """``oci-layout://PATH[:TAG|@DIGEST]``: an image of an OCI layout; without ``identifier`` its only one."""

    path: Path
    identifier: str = ""

    def __str__(self) -> str:
        separator = "@" if ":" in self.identifier else ":"
        return f"oci-layout://{self.path}{separator if self.identifier else ''}{self.identifier}"


@dataclass(frozen=True, slots=True)
class TarFile:
    """A tar of this machine; None is the standard input."""

    path: Path | None

    def __str__(self) -> str:
        return str(self.path or "the standard input")


@dataclass(frozen=True, slots=True)
class S3Object:
    """A tar in an S3 bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class GoogleObject:
    """A tar in a bucket of Google Cloud Storage."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True, slots=True)
class AzureBlob:
    """A tar in Azure's blob storage; the URL may have a shared access signature as its query."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def account(self) -> str:
        """The storage account: the first label of the host's name."""
        return (urlsplit(self.url).hostname or "").partition(".")[0]

    @property
    def is_signed(self) -> bool:
        """True for a URL with a shared access signature, which needs no key."""
        return "sig=" in urlsplit(self.url).query


@dataclass(frozen=True, slots=True)
class WebArchive:
    """A tar behind http or https."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return shown(self.url)


ArchiveContext = TarFile | S3Object | GoogleObject | AzureBlob | WebArchive
FetchedContext = ArchiveContext | GitSource
MainContext = DirectoryContext | FetchedContext
NamedContext = MainContext | ImageContext | LayoutContext


@dataclass(frozen=True, slots=True)
class GitOptions:
    """Kaniko's ``--git``: what is taken of a repository that the context's URL does not say itself."""

    branch: str = ""
    submodules: bool = True
    skip_tls_verify: bool = False


def parse_context(text: str, git: GitOptions | None = None, *, git_scheme: str = "git") -> MainContext:
    """The context that ``text`` names; a directory need not be there. Raises ValueError.

    ``git_scheme`` is what ``git://`` stands for: the protocol of that name, or (as Kaniko has it) https or http.
    """
    if text == "-":
        return TarFile(None)
    if is_git(text.partition("#")[0]):
        return _git(text, git or GitOptions(), git_scheme)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "dir":
        return DirectoryContext(Path(rest if separator else text).absolute())
    match scheme:
        case "tar":
            if not rest:
                raise ValueError("tar:// names no file: expected tar://FILE or tar://stdin")
            return TarFile(None if rest in ("stdin", "-") else Path(rest).absolute())
        case "s3":
            return S3Object(*_bucket_and_key(text, rest))
        case "gs":
            return GoogleObject(*_bucket_and_key(text, rest))
        case "http" | "https":
            return _web(text)
    known = "a directory, dir://, tar://, s3://, gs://, https://, git:// or ssh://"
    raise ValueError(f"{scheme}://… is not supported: expected {known}")


def _bucket_and_key(text: str, rest: str) -> tuple[str, str]:
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ValueError(f"{text!r} names no bucket")
    return bucket, key or DEFAULT_OBJECT


def _web(text: str) -> AzureBlob | WebArchive:
    host = urlsplit(text).hostname
    if not host:
        raise ValueError(f"{shown(text)!r} is not a URL: no host in it")
    if not _AZURE.fullmatch(host):
        return WebArchive(text)
    container, _, blob = unquote(urlsplit(text).path).lstrip("/").partition("/")
    if not container or not blob:
        raise ValueError(f"{shown(text)!r}: expected https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
    return AzureBlob(text)


def _git(text: str, options: GitOptions, git_scheme: str) -> GitSource:
    if git_scheme not in _GIT_SCHEMES:
        raise ValueError(f"GIT_PULL_METHOD is {git_scheme!r}: expected https, http or git")
    if text.startswith("git://"):
        text = _GIT_SCHEMES[git_scheme] + text.removeprefix("git://")
    return parse_git(text, ref=options.branch, submodules=options.submodules, skip_tls_verify=options.skip_tls_verify)


def parse_named_context(text: str) -> NamedContext:
    """The context that ``--build-context NAME=text`` names. Raises ValueError, also as InvalidReference."""
    if text.startswith("docker-image://"):
        return ImageContext(Reference.parse(text.removeprefix("docker-image://")))
    if text.startswith("oci-layout://"):
        return _layout(text.removeprefix("oci-layout://"))
    if text in ("-", "tar://stdin", "tar://-"):
        raise ValueError("the standard input can be the build context only")
    if text.startswith("target:"):
        raise ValueError("target: names a target of a bake file, which is not read here: FROM and --from take stages")
    return parse_context(text)


def _layout(text: str) -> LayoutContext:
    path, at, digest = text.partition("@")
    if at:
        return LayoutContext(Path(path).absolute(), digest)
    name, colon, tag = posixpath.basename(text).partition(":")
    if not name:
        raise ValueError("oci-layout:// names no directory")
    return LayoutContext(Path(posixpath.dirname(text), name).absolute(), tag if colon else "")
