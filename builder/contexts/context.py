"""The build context: the Dockerfile, ``.dockerignore``, and what each COPY takes from the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.contexts.file_digests import FileDigests
from builder.contexts.ignore import IgnoreRules
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.lines import read_text
from builder.dockerfile.parser import parse
from builder.errors import BuildError, ContextError, Span
from builder.execution.copy import Source, collect, content_digest
from builder.execution.digests import file_digest
from builder.layer.rootfs import Tree
from builder.planning.checks import Checks, Finding, checks_of
from builder.planning.graph import ContextRead, Position
from builder.planning.lint import lint
from cache.keys import CacheKey

MAX_DOCKERFILE_BYTES = 16 << 20


def read_dockerfile(
    path: Path, predefined: Mapping[str, str], given_checks: str | None = None
) -> tuple[Dockerfile, list[Finding], Checks]:
    """The parsed Dockerfile, what the checks of its text have found, and what that means: as ``given_checks`` say, else
    the file itself.

    Raises BuildError when it cannot be read, DockerfileError when it cannot be understood.
    """
    data = _read(path)
    dockerfile = parse(data, path.name)
    text = read_text(data, path.name)
    checks = checks_of(text, given_checks)
    return dockerfile, lint(text, dockerfile, predefined), checks


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
    """A directory with files to build from, which of them are left out, and what is known of their contents."""

    directory: Path
    ignore: IgnoreRules
    digests: FileDigests | None = None


@dataclass(slots=True)
class ContextReader:
    """What the steps of one build take from its contexts, each read once for all stages, platforms and targets.

    ``open_context`` gives the context with a name ("" is the unnamed one); it is asked when a step needs it.
    """

    open_context: Callable[[str], Awaitable[Context]]
    _contexts: dict[str, Context] = field(default_factory=dict)
    _taken: dict[ContextRead, tuple[tuple[Source, ...], CacheKey]] = field(default_factory=dict)

    async def read(
        self, reads: Iterable[tuple[Position, ContextRead]]
    ) -> tuple[dict[Position, tuple[Source, ...]], dict[Position, CacheKey]]:
        """What each step takes from its context, and the digest of that. Raises BuildError with the step's place."""
        listed = list(reads)
        missing = {wanted: None for _, wanted in listed if wanted not in self._taken}
        await self.open(missing)
        taken = await asyncio.gather(
            *(asyncio.to_thread(_take, self._contexts[wanted.context.name], wanted) for wanted in missing)
        )
        self._taken.update(zip(missing, taken, strict=True))
        read = (self._contexts[name].digests for name in {wanted.context.name for wanted in missing})
        await asyncio.gather(*(asyncio.to_thread(digests.save) for digests in read if digests is not None))
        sources = {position: self._taken[wanted][0] for position, wanted in listed}
        return sources, {position: self._taken[wanted][1] for position, wanted in listed}

    async def open(self, reads: Iterable[ContextRead]) -> Mapping[str, Context]:
        """All contexts that were opened so far by their names, those of ``reads`` among them. Raises BuildError."""
        names = {read.context.name: read for read in reads if read.context.name not in self._contexts}
        opened = await asyncio.gather(*(self._opened(name, read.span) for name, read in names.items()))
        self._contexts.update(zip(names, opened, strict=True))
        return self._contexts

    async def _opened(self, name: str, span: Span) -> Context:
        try:
            return await self.open_context(name)
        except BuildError as error:
            raise error.at(span) from error


def _take(context: Context, wanted: ContextRead) -> tuple[tuple[Source, ...], CacheKey]:
    try:
        sources = collect(
            Tree([context.directory]),
            wanted.selection,
            context.ignore,
            owner=(0, 0),
            detect_archives=wanted.detect_archives,
        )
        return sources, content_digest(sources, context.digests.of if context.digests is not None else file_digest)
    except BuildError as error:
        raise error.at(wanted.span) from error
    except OSError as error:
        where = error.filename or context.directory
        message = f"cannot read {where} from the build context: {error.strerror or error}"
        raise ContextError(message, wanted.span) from error
