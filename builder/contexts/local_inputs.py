"""What a build reads, on this machine: contexts that lie elsewhere are fetched into the build's own directory first."""

from __future__ import annotations

import asyncio
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from builder import events
from builder.contexts.context import MAX_DOCKERFILE_BYTES, Context, read_ignore_rules
from builder.contexts.file_digests import FileDigests
from builder.contexts.locations import DirectoryContext, ImageContext, LayoutContext, MainContext
from builder.contexts.remote import GitSource, UrlSource
from builder.errors import ContextError
from builder.layer.links import clean
from builder.layer.rootfs import Tree
from builder.options import BuildOptions, Limits

KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""The build argument that leaves ``.git`` in a context (Dockerfile reference, "BuildKit built-in build args")."""


@dataclass(frozen=True, slots=True)
class LocalInputs:
    """The context's directory, and the Dockerfile. ``named`` contexts are fetched when they are opened."""

    place: MainContext
    context: Path
    dockerfile: Path
    named: Mapping[str, MainContext]
    state_dir: Path
    _fetcher: _Fetcher

    async def open_context(self, name: str) -> Context:
        """The context with this name, "" for the unnamed one, on this machine. Raises BuildError."""
        place = self.named[name] if name else self.place
        directory = await self._fetcher.directory(place) if name else self.context
        return await asyncio.to_thread(self._context, place, directory, None if name else self.dockerfile)

    def _context(self, place: MainContext, directory: Path, dockerfile: Path | None) -> Context:
        lasting = isinstance(place, DirectoryContext)  # others are new directories of this build
        digests = FileDigests(self.state_dir, directory, self._fetcher.scratch) if lasting else None
        return Context(directory, read_ignore_rules(directory, dockerfile), digests)


async def local_inputs(
    options: BuildOptions, scratch: Path, environ: Mapping[str, str], listen: events.Listener
) -> LocalInputs:
    """The context and the Dockerfile, fetched to new directories below ``scratch`` if not here. Raises BuildError."""
    fetcher = _Fetcher(scratch, environ, options.limits, listen)
    main = options.context
    if isinstance(main, GitSource) and KEEP_GIT_DIR in options.build_args:
        main = replace(main, keep_git_dir=options.build_args[KEEP_GIT_DIR].lower() in ("1", "true"))
    directory = await fetcher.directory(main)
    if options.context_sub_path:
        directory = await asyncio.to_thread(_below, directory, options.context_sub_path, main)
    fetched = not isinstance(main, DirectoryContext)
    dockerfile = await _dockerfile(options, directory, scratch, fetched=fetched)
    named = {n: place for n, place in options.contexts.items() if not isinstance(place, ImageContext | LayoutContext)}
    return LocalInputs(main, directory, dockerfile, named, options.state_dir, fetcher)


def _below(directory: Path, path: str, place: object) -> Path:
    """A directory inside a context, links on the way followed as if the context were the root."""
    tree = Tree([directory])
    resolved = tree.resolve(clean(path))
    found = tree.lstat(resolved)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise ContextError(f"the context {place} has no directory {path!r}")
    return directory / resolved


@dataclass(frozen=True, slots=True)
class _Fetcher:
    scratch: Path
    environ: Mapping[str, str]
    limits: Limits
    listen: events.Listener

    async def directory(self, place: MainContext) -> Path:
        """The files of the context. Raises BuildError."""
        if isinstance(place, DirectoryContext):
            if not await asyncio.to_thread(place.path.is_dir):
                raise ContextError(f"the context {place.path} is not a directory")
            return place.path
        from builder.contexts.fetching import fetch_context  # most contexts are here already

        directory = await fetch_context(place, self.scratch, self.environ, self.limits, self.listen)
        if isinstance(place, GitSource) and place.directory:
            return await asyncio.to_thread(_below, directory, place.directory, place)
        return directory


async def _dockerfile(options: BuildOptions, context: Path, scratch: Path, *, fetched: bool) -> Path:
    """The Dockerfile on this machine."""
    place = options.dockerfile
    if not (place.text == "-" or place.is_url):
        return await asyncio.to_thread(_found_dockerfile, options, context, fetched=fetched)
    path = await asyncio.to_thread(_new_dockerfile, scratch)
    if place.is_url:
        from builder.contexts.download import download

        await download(UrlSource(place.text), path, MAX_DOCKERFILE_BYTES)
    else:
        await asyncio.to_thread(_save_input, path)
    return path


def _new_dockerfile(scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="dockerfile-", dir=scratch), "Dockerfile")


def _found_dockerfile(options: BuildOptions, context: Path, *, fetched: bool) -> Path:
    """Looked up as given and then in the context; in a context that was fetched first, as it brings its own."""
    text = options.dockerfile.text
    inside, given = _file_inside(context, text), Path(text).absolute()
    for candidate in (inside, given) if fetched else (given, inside):
        if candidate is not None and candidate.is_file():
            return candidate
    raise ContextError(f"no Dockerfile {text!r}, neither here nor in the context {options.context}")


def _file_inside(context: Path, path: str) -> Path | None:
    tree = Tree([context])
    resolved = tree.resolve(clean(path))
    found = tree.lstat(resolved)
    return context / resolved if found is not None and stat.S_ISREG(found.st_mode) else None


def _save_input(path: Path) -> None:
    if sys.stdin is None or sys.stdin.isatty():
        raise ContextError("the Dockerfile shall come from the standard input, which is a terminal")
    path.write_bytes(sys.stdin.buffer.read(MAX_DOCKERFILE_BYTES + 1))
