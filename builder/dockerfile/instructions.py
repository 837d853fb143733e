"""The instructions of a Dockerfile as values, a closed union: what was written, before any variable is expanded.

A `Word` is text that may hold variables, quotes and escapes, as written, and where it was written; `expansion.expand`
makes it a string. Plain ``str`` fields are final: nothing in them is expanded by the builder (a RUN's command is the
shell's business). The rules are those of the Dockerfile reference and of BuildKit's front end.
"""

from __future__ import annotations

import msgspec

from builder.errors import Span

RUN_DOCUMENTS = "/dev/pipes"
"""Where a RUN finds the script that is written below it."""


class Word(msgspec.Struct, frozen=True):
    """Text to be expanded, and its place in the file."""

    text: str
    span: Span


class Pair(msgspec.Struct, frozen=True):
    """``key=value`` of ENV and LABEL."""

    key: Word
    value: Word


class Argument(msgspec.Struct, frozen=True):
    """``name`` or ``name=default`` of ARG; the default is None when none is written."""

    name: Word
    default: Word | None


class ShellForm(msgspec.Struct, frozen=True):
    """A command line for the stage's shell, continuation lines joined."""

    text: str


class ExecForm(msgspec.Struct, frozen=True):
    """A program and its arguments, from a JSON array; may be empty for CMD and ENTRYPOINT."""

    argv: tuple[str, ...]


Command = ShellForm | ExecForm


class _Located(msgspec.Struct, frozen=True, kw_only=True):
    """``span`` is the first line of the instruction; ``source`` its whole text, comments out, continuations joined."""

    span: Span
    source: str


class From(_Located, frozen=True, kw_only=True):
    """FROM: ``image`` names an image, an earlier stage or ``scratch``; ``name`` is in lower case, empty without AS."""

    image: Word
    platform: Word | None = None
    name: str = ""


class Arg(_Located, frozen=True, kw_only=True):
    """ARG, before the first FROM or inside a stage."""

    arguments: tuple[Argument, ...]


class Env(_Located, frozen=True, kw_only=True):
    """ENV; the values of one instruction do not see each other."""

    pairs: tuple[Pair, ...]


class Document(msgspec.Struct, frozen=True):
    """A file written out in the Dockerfile; where ``expand``, variables in ``content`` have their values."""

    name: str
    content: str
    expand: bool


class Run(_Located, frozen=True, kw_only=True):
    """RUN, in shell or exec form.

    A ``script`` is a here-document with an interpreter of its own: the command is its path, see `RUN_DOCUMENTS`.
    ``mounts`` are the texts of ``--mount``, ``network`` and ``security`` those of their flags.
    """

    command: Command
    script: Document | None = None
    mounts: tuple[Word, ...] = ()
    network: Word | None = None
    security: Word | None = None


class Copy(_Located, frozen=True, kw_only=True):
    """COPY; ``from_`` is the text of ``--from`` (a stage's name or number, or an image), None for the context."""

    sources: tuple[Word, ...]
    documents: tuple[Document, ...] = ()
    destination: Word
    from_: Word | None = None
    chown: Word | None = None
    chmod: Word | None = None
    link: bool = False
    parents: bool = False
    excludes: tuple[Word, ...] = ()


class Add(_Located, frozen=True, kw_only=True):
    """ADD: as COPY from the context, but it fetches URLs and git repositories, and unpacks archives of the context.

    ``unpack`` overrules what is unpacked: None is the default, archives of the context alone.
    """

    sources: tuple[Word, ...]
    documents: tuple[Document, ...] = ()
    destination: Word
    chown: Word | None = None
    chmod: Word | None = None
    link: bool = False
    excludes: tuple[Word, ...] = ()
    checksum: Word | None = None
    keep_git_dir: bool = False
    unpack: bool | None = None


class Workdir(_Located, frozen=True, kw_only=True):
    path: Word


class User(_Located, frozen=True, kw_only=True):
    user: Word


class Label(_Located, frozen=True, kw_only=True):
    pairs: tuple[Pair, ...]


class Expose(_Located, frozen=True, kw_only=True):
    """EXPOSE; each word expands to any number of ports (`expansion.expand_words`, then `metadata.with_ports`)."""

    ports: tuple[Word, ...]


class Volume(_Located, frozen=True, kw_only=True):
    paths: tuple[Word, ...]


class Cmd(_Located, frozen=True, kw_only=True):
    command: Command


class Entrypoint(_Located, frozen=True, kw_only=True):
    command: Command


class Shell(_Located, frozen=True, kw_only=True):
    """SHELL: what shell forms after it are given to."""

    argv: tuple[str, ...]


class StopSignal(_Located, frozen=True, kw_only=True):
    signal: Word


class HealthCheck(_Located, frozen=True, kw_only=True):
    """HEALTHCHECK; ``test`` begins with ``NONE``, ``CMD`` or ``CMD-SHELL``. 0 stands for what is not written."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class OnBuild(_Located, frozen=True, kw_only=True):
    """ONBUILD; ``trigger`` is the text of the instruction that a build on this image begins with."""

    trigger: str


class Maintainer(_Located, frozen=True, kw_only=True):
    """MAINTAINER, deprecated: the image's author."""

    name: str


Instruction = (
    Arg
    | Env
    | Run
    | Copy
    | Add
    | Workdir
    | User
    | Label
    | Expose
    | Volume
    | Cmd
    | Entrypoint
    | Shell
    | StopSignal
    | HealthCheck
    | OnBuild
    | Maintainer
)
"""What may stand in a stage after its FROM."""


class StageText(msgspec.Struct, frozen=True):
    """A FROM and what follows it up to the next."""

    base: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    """A whole file: the ARGs before the first FROM, at least one stage, and its escape character."""

    global_args: tuple[Arg, ...]
    stages: tuple[StageText, ...]
    escape: str = "\\"


def is_remote(source: str) -> bool:
    """True for a source of ADD that is a URL or a git repository, not a path of the build context."""
    return source.startswith(("http://", "https://", "git://", "ssh://", "git@", "github.com/"))
