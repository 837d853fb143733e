"""The instructions that add files to an image, RUN, COPY and ADD: text → typed values."""

from __future__ import annotations

from builder.dockerfile.instructions import Add, Copy, ExecForm, Run, Word, is_remote
from builder.dockerfile.statement import Statement, take_flags
from builder.errors import DockerfileError


def parse_run(statement: Statement) -> Run:
    take_flags(statement)
    command = statement.command()
    if command == ExecForm(()):
        raise statement.error("RUN needs a command")
    return Run(span=statement.span, source=statement.source, command=command)


def _copied(statement: Statement) -> tuple[tuple[Word, ...], Word]:
    words = statement.words()
    if len(words) < 2:
        raise statement.error(f"{statement.keyword.text} needs at least one source and a destination")
    return tuple(words[:-1]), words[-1]


def parse_copy(statement: Statement) -> Copy:
    flags = take_flags(statement, "from", "chown", "chmod")
    sources, destination = _copied(statement)
    for source in sources:
        if is_remote(source.text):
            raise DockerfileError("COPY cannot fetch: its sources are paths", source.span)
    return Copy(
        span=statement.span,
        source=statement.source,
        sources=sources,
        destination=destination,
        from_=flags.word("from"),
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
    )


def parse_add(statement: Statement) -> Add:
    flags = take_flags(statement, "chown", "chmod")
    sources, destination = _copied(statement)
    for source in sources:
        if is_remote(source.text):
            raise DockerfileError("ADD from a URL or a git repository is not supported yet", source.span)
    return Add(
        span=statement.span,
        source=statement.source,
        sources=sources,
        destination=destination,
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
    )
