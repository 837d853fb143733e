"""The instructions that add files to an image, RUN, COPY and ADD: text → typed values."""

from __future__ import annotations

from builder.dockerfile.heredocs import Heredoc, read_mark
from builder.dockerfile.instructions import (
    RUN_DOCUMENTS,
    Add,
    Command,
    Copy,
    Document,
    ExecForm,
    Run,
    ShellForm,
    Word,
    is_remote,
)
from builder.dockerfile.mounts import mount_from
from builder.dockerfile.statement import Statement, take_flags
from builder.errors import DockerfileError


def parse_run(statement: Statement) -> Run:
    for flag in statement.flags:
        if flag.name == "device":
            raise statement.error("RUN --device: steps get none of the machine's devices", flag.token)
    flags = take_flags(statement, "network", "security", repeated=("mount",))
    command = statement.command()
    if command == ExecForm(()):
        raise statement.error("RUN needs a command")
    for mount in flags.words("mount"):
        mount_from(mount)
    command, script = _with_documents(command, statement.line.heredocs)
    return Run(
        span=statement.span,
        source=statement.source,
        command=command,
        script=script,
        mounts=flags.words("mount"),
        network=flags.word("network"),
        security=flags.word("security"),
    )


def _with_documents(command: Command, heredocs: tuple[Heredoc, ...]) -> tuple[Command, Document | None]:
    """What is run when here-documents are below: alone, one is a script for the shell, or for the interpreter that it
    names; where there is more, the shell reads them itself. Nothing in them is expanded by the builder."""
    if not heredocs or not isinstance(command, ShellForm):
        return command, None
    if read_mark(command.text) is None:
        return ShellForm("\n".join((command.text, *(f"{doc.text}{doc.mark.name}" for doc in heredocs)))), None
    first = heredocs[0]
    if not first.text.startswith("#!"):
        return ShellForm(first.content), None
    return ShellForm(f"{RUN_DOCUMENTS}/{first.mark.name}"), Document(first.mark.name, first.content, expand=False)


def _copied(statement: Statement) -> tuple[tuple[Word, ...], tuple[Document, ...], Word]:
    """The sources, those written out in the Dockerfile, and the destination."""
    words = statement.words()
    if len(words) < 2:
        raise statement.error(f"{statement.keyword.text} needs at least one source and a destination")
    below = {doc.mark.name: doc for doc in statement.line.heredocs}
    documents: list[Document] = []
    sources: list[Word] = []
    for word in words[:-1]:
        mark = read_mark(word.text) if below else None
        if mark is None:
            sources.append(word)
        elif mark.name not in below:
            raise DockerfileError("the name of a here-document cannot have blanks in it", word.span)
        else:
            documents.append(Document(mark.name, below[mark.name].content, mark.expand))
    if below and read_mark(words[-1].text):
        raise DockerfileError(f"{statement.keyword.text}: a here-document cannot be a destination", words[-1].span)
    return tuple(sources), tuple(documents), words[-1]


def parse_copy(statement: Statement) -> Copy:
    flags = take_flags(statement, "from", "chown", "chmod", switches=("link", "parents"), repeated=("exclude",))
    sources, documents, destination = _copied(statement)
    for source in sources:
        if is_remote(source.text):
            raise DockerfileError("COPY cannot fetch: its sources are paths", source.span)
    return Copy(
        span=statement.span,
        source=statement.source,
        sources=sources,
        documents=documents,
        destination=destination,
        from_=flags.word("from"),
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        link=flags.on("link") is True,
        parents=flags.on("parents") is True,
        excludes=flags.words("exclude"),
    )


def parse_add(statement: Statement) -> Add:
    flags = take_flags(
        statement,
        "chown",
        "chmod",
        "checksum",
        switches=("link", "keep-git-dir", "unpack"),
        repeated=("exclude",),
    )
    sources, documents, destination = _copied(statement)
    return Add(
        span=statement.span,
        source=statement.source,
        sources=sources,
        documents=documents,
        destination=destination,
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        link=flags.on("link") is True,
        excludes=flags.words("exclude"),
        checksum=flags.word("checksum"),
        keep_git_dir=flags.on("keep-git-dir") is True,
        unpack=flags.on("unpack"),
    )
