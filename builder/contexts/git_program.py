"""A git repository of ADD or of a context, by the real git: what a ref means now, and the files of a commit.

Credentials, from the URL or from GIT_TOKEN, GIT_USERNAME and GIT_PASSWORD, go to git by its environment: they are in no
command line, in no configuration of the checkout, and are sent to the repository's own host only.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.contexts.remote import GitSource, is_commit
from builder.errors import ContextError
from builder.options import DEFAULT_LIMITS, Limits

_TIMEOUT_S = 1800
_SHOWN_CHARS = 600
_BOUNDED = ("sh", "-c", 'trap \'\' XFSZ; ulimit -f "$1"; shift; exec "$@"', "git")
"""Runs a command that may make no file of more blocks of 512 bytes: git bounds only packs that are pushed to it."""
_NOT_WRITTEN = (b"File too large", b"curl_result = 23")
"""What git says, the second where a server knows no git (CURLE_WRITE_ERROR)."""
_PASSED_ON = (
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)
_ANY_USER = "x-access-token"
"""GitHub, GitLab and Gitea take a token as the password of any user."""
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Git:
    """The program, with what it may see of the environment, and how much it may check out. It never asks anybody, and
    runs no helper programs."""

    environ: Mapping[str, str]
    limits: Limits = DEFAULT_LIMITS

    def commit_of(self, source: GitSource) -> str:
        """The commit that the source's ref names now. Raises ContextError."""
        commit = source.ref if is_commit(source.ref) else self._look_up(source)
        if source.commit and not commit.startswith(source.commit):
            raise ContextError(f"{source}: expected the commit {source.commit}, got {commit}")
        return commit

    def _look_up(self, source: GitSource) -> str:
        ref = source.ref or "HEAD"
        told = self._run(["ls-remote", "--", _without_user(source.repository), ref, f"{ref}^{{}}"], source)
        found = {name: commit for commit, _, name in (line.partition("\t") for line in told.splitlines())}
        names = (f"refs/tags/{ref}^{{}}", f"refs/heads/{ref}", f"refs/tags/{ref}", f"{ref}^{{}}", ref)
        for name in names:
            if name in found:
                return found[name]
        raise ContextError(f"{source} has no ref {ref!r}")

    def check_out(self, source: GitSource, commit: str, directory: Path) -> None:
        """Writes the files of the commit, and of its submodules, into an empty directory. Raises ContextError."""
        at = ["-C", str(directory)]
        self._run(["init", "--quiet", str(directory)], source)
        self._run([*at, "remote", "add", "origin", _without_user(source.repository)], source)
        try:
            self._fetch([*at, "fetch", "--quiet", "--depth=1", "origin", commit], source)
        except ContextError:  # a server that gives no single commits
            self._fetch([*at, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"], source)
        self._within_limits(source, self._sizes_bytes(source, directory, commit))
        self._run([*at, "checkout", "--quiet", "--detach", commit], source)
        if source.submodules and (directory / ".gitmodules").is_file():
            self._update_submodules(source, directory)
            self._within_limits(source, _sizes_bytes_below(directory))
        if not source.keep_git_dir:
            _remove_git_directories(directory)

    def _update_submodules(self, source: GitSource, directory: Path) -> None:
        submodule = ["-C", str(directory), "submodule", "--quiet"]
        try:
            self._fetch([*submodule, "update", "--init", "--recursive", "--depth=1"], source)
        except ContextError:  # as above; what has come is shallow, and git does not go on from that
            self._run([*submodule, "deinit", "--force", "--all"], source)
            shutil.rmtree(directory / ".git/modules", ignore_errors=True)
            self._fetch([*submodule, "update", "--init", "--recursive"], source)

    def _within_limits(self, source: GitSource, sizes_bytes: Iterable[int]) -> None:
        """Returns when so many files of these sizes may come in. Raises ContextError."""
        total_bytes = 0
        for number, size_bytes in enumerate(sizes_bytes, 1):
            total_bytes += size_bytes
            if number > self.limits.files:
                raise ContextError(f"{source} has more than {self.limits.files} files (--max-files)")
            if total_bytes > self.limits.unpacked_bytes:
                raise ContextError(f"{source} has more than {self.limits.unpacked_bytes} bytes (--max-unpacked-bytes)")

    def _sizes_bytes(self, source: GitSource, directory: Path, commit: str) -> Iterator[int]:
        """The size of each file that a commit has, before it is written: a small pack may hold more than any disk."""
        command = ["git", "-C", str(directory), "ls-tree", "-r", "-l", "-z", commit]
        nothing, environ = subprocess.DEVNULL, self._environ(source)
        with subprocess.Popen(command, env=environ, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing) as listing:
            try:
                assert listing.stdout is not None
                yield from map(_size_bytes, _entries(listing.stdout))
            finally:
                listing.kill()

    def _environ(self, source: GitSource) -> dict[str, str]:
        environ = {name: self.environ[name] for name in _PASSED_ON if name in self.environ}
        environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
        environ |= {"GIT_SSH_COMMAND": self.environ.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes"}
        return environ | _configuration(self._settings(source))

    def _fetch(self, arguments: Sequence[str], source: GitSource) -> None:
        """Runs git where no pack may become larger than a download."""
        blocks = self.limits.download_bytes // 512
        self._run(arguments, source, (*_BOUNDED, str(blocks)))

    def _run(self, arguments: Sequence[str], source: GitSource, bounds: Sequence[str] = ()) -> str:
        safe = ["-c", "protocol.ext.allow=never", "-c", "advice.detachedHead=false", "-c", "core.hooksPath=/dev/null"]
        try:
            done = subprocess.run(
                [*bounds, "git", *safe, *arguments],
                env=self._environ(source),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                umask=0o022,
            )
        except FileNotFoundError as error:
            raise ContextError(f"cannot fetch {source}: the program git is not installed here") from error
        except subprocess.TimeoutExpired as error:
            raise ContextError(f"cannot fetch {source}: git took longer than {_TIMEOUT_S} s") from error
        if not done.returncode:
            return done.stdout.decode(errors="surrogateescape")
        reason = f"git says: {_told(done.stderr)}"
        if bounds and any(said in done.stderr for said in _NOT_WRITTEN):
            reason = f"a file of more than {self.limits.download_bytes} bytes (--max-download-bytes)? {reason}"
        raise ContextError(f"cannot fetch {source}: {reason}")

    def _settings(self, source: GitSource) -> dict[str, str]:
        """Git's settings for this repository, credentials among them."""
        settings = {"http.sslVerify": "false"} if source.skip_tls_verify else {}
        url = urlsplit(source.repository)
        if url.scheme not in ("http", "https"):
            return settings
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}" if url.username else self._given()
        if pair:
            origin = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], "/", "", ""))
            header = f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"
            settings[f"http.{origin}.extraHeader"] = header
        return settings

    def _given(self) -> str:
        """``user:password`` of the environment, or nothing."""
        user, token = self.environ.get("GIT_USERNAME", ""), self.environ.get("GIT_TOKEN", "")
        password = token or self.environ.get("GIT_PASSWORD", "")
        return f"{user or _ANY_USER}:{password}" if user or password else ""


def _entries(listing: IO[bytes]) -> Iterator[bytes]:
    """What stands between zero bytes."""
    rest = b""
    while data := listing.read(1 << 16):
        *entries, rest = (rest + data).split(b"\0")
        yield from entries


def _size_bytes(entry: bytes) -> int:
    """Of an entry of ``git ls-tree -l``: mode, type, object, size or a dash for a submodule, a tab and the name."""
    size = entry.partition(b"\t")[0].split()[-1]
    return int(size) if size.isdigit() else 0


def _sizes_bytes_below(directory: Path) -> Iterator[int]:
    """The size of each file in a checkout, those of its submodules too."""
    for above, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name != ".git"]
        yield from (os.lstat(os.path.join(above, name)).st_size for name in files)


def _told(stderr: bytes) -> str:
    """What git says, each line once and without passwords; of much the beginning, which has the cause, and the end."""
    lines = dict.fromkeys(_USER_INFO.sub("", stderr.decode(errors="replace")).strip().splitlines())
    told = "\n".join(lines)
    return told if len(told) <= 2 * _SHOWN_CHARS else f"{told[:_SHOWN_CHARS]} … {told[-_SHOWN_CHARS:]}"


def _without_user(repository: str) -> str:
    """The URL without credentials where they are sent as a header; ssh's user stays."""
    return _USER_INFO.sub("", repository) if repository.startswith(("http://", "https://")) else repository


def _configuration(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings as environment variables (git-config, "GIT_CONFIG_COUNT")."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _remove_git_directories(directory: Path) -> None:
    """The repositories' own files, those of submodules too."""
    for above, directories, files in os.walk(directory):
        if ".git" in directories:
            shutil.rmtree(Path(above, ".git"))
            directories.remove(".git")
        if ".git" in files:
            Path(above, ".git").unlink()
