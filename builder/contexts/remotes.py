"""What ADD fetches, once for each build: what it is, for the key, and its files when a step really needs them."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from builder.contexts.download import Downloaded, download
from builder.contexts.git_program import Git
from builder.contexts.remote import GitSource, RemoteSource, UrlSource
from builder.errors import BuildError
from builder.execution.copy import Source, collect
from builder.layer.archives import is_archive
from builder.layer.changes import Entry
from builder.layer.rootfs import Tree
from builder.options import Limits
from builder.planning.sources import Selection
from builder.planning.steps import CopyFiles
from cache.keys import CacheKey, KeyBuilder
from cache.singleflight import SingleFlight


@dataclass(slots=True)
class Remotes:
    """The remote sources of one build, below ``scratch``."""

    scratch: Path
    git: Git
    limits: Limits
    _downloads: SingleFlight[UrlSource, Downloaded] = field(default_factory=SingleFlight)
    _done: dict[UrlSource, Downloaded] = field(default_factory=dict)
    _commits: dict[GitSource, str] = field(default_factory=dict)

    async def content(self, remote: RemoteSource, step: CopyFiles) -> CacheKey:
        """What stands for the source in a key: a file's digest, which is fetched unless it is given, or a commit.

        Raises BuildError, with the step's place.
        """
        key = KeyBuilder("remote")
        try:
            match remote:
                case UrlSource():
                    digest = remote.checksum or (await self._downloaded(remote)).digest
                    key.text("digest", str(digest)).text("name", remote.name).text("unpack", str(remote.unpack))
                case GitSource():
                    key.text("commit", await self._commit(remote)).text("directory", remote.directory)
                    key.text("keep_git_dir", str(remote.keep_git_dir))
                    if not remote.submodules:
                        key.text("submodules", "False")
        except BuildError as error:
            raise error.at(step.span) from error
        return key.key()

    async def source(self, remote: RemoteSource, selection: Selection) -> Source:
        """The files, ready to be placed. Raises BuildError and OSError."""
        match remote:
            case UrlSource():
                return _file(remote, await self._downloaded(remote))
            case GitSource():
                commit = await self._commit(remote)
                return await asyncio.to_thread(self._checked_out, remote, commit, selection)

    async def _downloaded(self, remote: UrlSource) -> Downloaded:
        if remote not in self._done:
            most = self.limits.download_bytes
            self._done[remote] = await self._downloads.run(remote, lambda: download(remote, self._new() / "file", most))
        return self._done[remote]

    async def _commit(self, remote: GitSource) -> str:
        if remote not in self._commits:
            self._commits[remote] = await asyncio.to_thread(self.git.commit_of, remote)
        return self._commits[remote]

    def _checked_out(self, remote: GitSource, commit: str, selection: Selection) -> Source:
        directory = self._new()
        self.git.check_out(remote, commit, directory)
        wanted = Selection(patterns=(remote.directory or "/",), excludes=selection.excludes)
        (source,) = collect(Tree([directory]), wanted, owner=(0, 0))
        return source

    def _new(self) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="remote-", dir=self.scratch))


def _file(remote: UrlSource, downloaded: Downloaded) -> Source:
    """As BuildKit has it: for the owner alone, with the server's time."""
    path = str(downloaded.path)
    entry = Entry(
        "", stat.S_IFREG | 0o600, mtime_ns=downloaded.mtime_s * 10**9, size_bytes=downloaded.size_bytes, content=path
    )
    return Source(remote.name, "archive" if remote.unpack and is_archive(path) else "file", (entry,))
