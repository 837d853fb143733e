"""The build context: the Dockerfile, ``.dockerignore``, and what each COPY takes from the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.contexts.ignore import IgnoreRules
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.lines import read_text
from builder.dockerfile.parser import parse
from builder.errors import BuildError, ContextError
from builder.execution.copy import Source, collect, content_digest
from builder.layer.rootfs import Tree
from builder.planning.graph import ContextRead, Position
from builder.planning.lint import Checks, Finding, checks_of, lint
from cache.keys import CacheKey

MAX_DOCKERFILE_BYTES = 16 << 20


def read_dockerfile(path: Path, predefined: Mapping[str, str]) -> tuple[Dockerfile, list[Finding], Checks]:
    """The parsed Dockerfile, what its checks have found, and what that means.

    Raises BuildError when it cannot be read, DockerfileError when it cannot be understood.
    """
    data = _read(path)
    dockerfile = parse(data, path.name)
    text = read_text(data, path.name)
    checks = checks_of(text)
    return dockerfile, [f for f in lint(text, dockerfile, predefined) if checks.counts(f)], checks


def read_ignore_rules(context: Path, dockerfile: Path | None = None) -> IgnoreRules:
    """The rules of ``<Dockerfile>.dockerignore`` where there is one, else of the context's ``.dockerignore``.

    A link in the context leads nowhere outside it.
    """
    paths = [dockerfile.with_name(dockerfile.name + ".dockerignore")] if dockerfile else []
    for path in (*paths, context / ".dockerignore"):
        inside = Tree([context]).resolve(str(path.relative_to(context))) if path.is_relative_to(context) else None
        found = path if inside is None else context / inside
        if found.is_file():
            return IgnoreRules.parse(_read(found).decode("utf-8", "surrogateescape"))
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


@dataclass(frozen=True, slots=True)
class Context:
    """A directory with files to build from, and which of them are left out."""

    directory: Path
    ignore: IgnoreRules


async def read_contexts(
    contexts: Mapping[str, Context], reads: Iterable[tuple[Position, ContextRead]]
) -> tuple[dict[Position, tuple[Source, ...]], dict[Position, CacheKey]]:
    """What each step takes from its context ("" is the unnamed one), and the digest of that.

    Raises ContextError with the step's place.
    """
    trees = {name: Tree([context.directory]) for name, context in contexts.items()}
    listed = list(reads)

    def read(wanted: ContextRead) -> tuple[tuple[Source, ...], CacheKey]:
        context = contexts[wanted.context.name]
        try:
            sources = collect(
                trees[wanted.context.name],
                wanted.selection,
                context.ignore,
                owner=(0, 0),
                detect_archives=wanted.detect_archives,
            )
            return sources, content_digest(sources)
        except BuildError as error:
            raise error.at(wanted.span) from error
        except OSError as error:
            where = error.filename or context.directory
            message = f"cannot read {where} from the build context: {error.strerror or error}"
            raise ContextError(message, wanted.span) from error

    read_all = await asyncio.gather(*(asyncio.to_thread(read, wanted) for _, wanted in listed))
    positions = [position for position, _ in listed]
    sources = dict(zip(positions, (sources for sources, _ in read_all), strict=True))
    return sources, dict(zip(positions, (digest for _, digest in read_all), strict=True))
