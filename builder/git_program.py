"""A git repository of ADD, by the real git: what a ref means now, and the files of a commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ContextError
from builder.remote import GitSource, is_commit, shown

_TIMEOUT_S = 1800
_TAIL_CHARS = 600
_PASSED_ON = (
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Git:
    """The program, with what it may see of the environment. It never asks anybody, and runs no helper programs."""

    environ: Mapping[str, str]

    def commit_of(self, source: GitSource) -> str:
        """The commit that the source's ref names now. Raises ContextError."""
        commit = source.ref if is_commit(source.ref) else self._look_up(source)
        if source.commit and not commit.startswith(source.commit):
            raise ContextError(f"{source}: expected the commit {source.commit}, got {commit}")
        return commit

    def _look_up(self, source: GitSource) -> str:
        ref = source.ref or "HEAD"
        told = self._run(["ls-remote", "--", source.repository, ref, f"{ref}^{{}}"], source)
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
        self._run([*at, "remote", "add", "origin", source.repository], source)
        try:
            self._run([*at, "fetch", "--quiet", "--depth=1", "origin", commit], source)
        except ContextError:  # a server that gives no single commits
            self._run([*at, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"], source)
        self._run([*at, "checkout", "--quiet", "--detach", commit], source)
        if (directory / ".gitmodules").is_file():
            self._run([*at, "submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"], source)
        if not source.keep_git_dir:
            _remove_git_directories(directory)

    def _run(self, arguments: Sequence[str], source: GitSource) -> str:
        environ = {name: self.environ[name] for name in _PASSED_ON if name in self.environ}
        environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
        environ |= {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
        safe = ["-c", "protocol.ext.allow=never", "-c", "advice.detachedHead=false", "-c", "core.hooksPath=/dev/null"]
        try:
            done = subprocess.run(
                ["git", *safe, *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                umask=0o022,
            )
        except FileNotFoundError as error:
            raise ContextError(f"cannot fetch {source}: there is no git here") from error
        except subprocess.TimeoutExpired as error:
            raise ContextError(f"cannot fetch {source}: git took longer than {_TIMEOUT_S} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").replace(source.repository, shown(source.repository))
            reason = _USER_INFO.sub("", said).strip()[-_TAIL_CHARS:]
            raise ContextError(f"cannot fetch {source}: git says: {reason}")
        return done.stdout.decode(errors="surrogateescape")


def _remove_git_directories(directory: Path) -> None:
    """The repositories' own files, those of submodules too."""
    for above, directories, files in os.walk(directory):
        if ".git" in directories:
            shutil.rmtree(Path(above, ".git"))
            directories.remove(".git")
        if ".git" in files:
            Path(above, ".git").unlink()
