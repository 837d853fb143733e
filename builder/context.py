"""The build context: the Dockerfile, ``.dockerignore``, and what each COPY takes from the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from builder.copy import Source, collect, content_digest
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.parser import parse
from builder.errors import BuildError, ContextError
from builder.graph import Position
from builder.ignore import IgnoreRules
from builder.rootfs import Tree
from builder.steps import CopyFiles
from cache.keys import CacheKey

MAX_DOCKERFILE_BYTES = 16 << 20


def read_dockerfile(path: Path) -> Dockerfile:
    """The parsed Dockerfile. Raises BuildError when it cannot be read, DockerfileError when it cannot be understood."""
    return parse(_read(path), path.name)


def read_ignore_rules(dockerfile: Path, context: Path) -> IgnoreRules:
    """The rules of ``<Dockerfile>.dockerignore`` where there is one, else of the context's ``.dockerignore``."""
    for path in (dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"):
        if path.is_file():
            return IgnoreRules.parse(_read(path).decode("utf-8", "surrogateescape"))
    return IgnoreRules.parse("")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCKERFILE_BYTES + 1)
    except OSError as error:
        raise ContextError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_DOCKERFILE_BYTES:
        raise ContextError(f"{path} is larger than {MAX_DOCKERFILE_BYTES} bytes")
    return data


async def read_copies(
    context: Path, ignore: IgnoreRules, copies: Iterable[tuple[Position, CopyFiles]]
) -> tuple[dict[Position, tuple[Source, ...]], dict[Position, CacheKey]]:
    """What each copy takes from the context, and the digest of that. Raises ContextError with the copy's place."""
    tree = Tree([context])
    listed = list(copies)

    def read(step: CopyFiles) -> tuple[tuple[Source, ...], CacheKey]:
        try:
            sources = collect(tree, step.sources, ignore, owner=(0, 0), detect_archives=step.unpack)
            return sources, content_digest(sources)
        except BuildError as error:
            raise error.at(step.span) from error
        except OSError as error:
            message = f"cannot read {error.filename or context} from the build context: {error.strerror or error}"
            raise ContextError(message, step.span) from error

    read_all = await asyncio.gather(*(asyncio.to_thread(read, step) for _, step in listed))
    positions = [position for position, _ in listed]
    sources = dict(zip(positions, (sources for sources, _ in read_all), strict=True))
    return sources, dict(zip(positions, (digest for _, digest in read_all), strict=True))
