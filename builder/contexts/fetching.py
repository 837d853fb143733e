"""Contexts that lie elsewhere → directories: archives are unpacked as they come, repositories checked out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from builder import events
from builder.contexts.archive_streams import open_archive
from builder.contexts.download import with_tries
from builder.contexts.git_program import Git
from builder.contexts.locations import ArchiveContext
from builder.contexts.remote import GitSource
from builder.errors import BuildError, ContextError
from builder.layer.chunk_stream import read_in_thread
from builder.layer.unpack import unpack_context
from builder.options import Limits


async def fetch_context(
    place: ArchiveContext | GitSource,
    scratch: Path,
    environ: Mapping[str, str],
    limits: Limits,
    listen: events.Listener,
) -> Path:
    """A new directory below ``scratch`` with all that the context holds. Raises BuildError."""
    if isinstance(place, GitSource):
        return await asyncio.to_thread(_checked_out, place, scratch, Git(environ, limits), listen)
    return await with_tries(place, lambda: _unpacked(place, scratch, environ, limits, listen))


def _checked_out(source: GitSource, scratch: Path, git: Git, listen: events.Listener) -> Path:
    commit = git.commit_of(source)
    directory = _new(scratch)
    git.check_out(source, commit, directory)
    listen(events.Note(f"the context is {source} at {commit}"))
    return directory


async def _unpacked(
    place: ArchiveContext, scratch: Path, environ: Mapping[str, str], limits: Limits, listen: events.Listener
) -> Path:
    directory = _new(scratch)
    async with open_archive(place, environ) as stream:
        try:
            unpacked = await read_in_thread(stream, partial(unpack_context, stream, directory, limits))
        except BuildError as error:
            raise ContextError(f"cannot unpack the context {place}: {error}") from error
    for skipped in unpacked.skipped:
        listen(events.Warned(f"the context {place} could not be unpacked whole: {skipped}"))
    return directory


def _new(scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="context-", dir=scratch))
