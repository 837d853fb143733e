"""The instructions of a Dockerfile as values, a closed union: what was written, before any variable is expanded.

A `Word` is text that may hold variables, quotes and escapes, as written, and where it was written; `expansion.expand`
makes it a string. Plain ``str`` fields are final: nothing in them is expanded by the builder (a RUN's command is the
shell's business). The rules are those of the Dockerfile reference and of BuildKit's front end.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.errors import Span

RUN_DOCUMENTS = "/dev/pipes"
"""Where a RUN finds the script that is written below it."""


@dataclass(frozen=True, slots=True)
class Word:
    """Text to be expanded, and its place in the file."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Pair:
    """``key=value`` of ENV and LABEL."""

    key: Word
    value: Word


@dataclass(frozen=True, slots=True)
class Argument:
    """``name`` or ``name=default`` of ARG; the default is None when none is written."""

    name: Word
    default: Word | None


@dataclass(frozen=True, slots=True)
class ShellForm:
    """A command line for the stage's shell, continuation lines joined."""

    text: str


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A program and its arguments, from a JSON array; may be empty for CMD and ENTRYPOINT."""

    argv: tuple[str, ...]


Command = ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Located:
    """``span`` is the first line of the instruction; ``source`` its whole text, comments out, continuations joined."""

    span: Span
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class From(_Located):
    """FROM: ``image`` names an image, an earlier stage or ``scratch``; ``name`` is in lower case, empty without AS."""

    image: Word
    platform: Word | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(_Located):
    """ARG, before the first FROM or inside a stage."""

    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(_Located):
    """ENV; the values of one instruction do not see each other."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A file written out in the Dockerfile; where ``expand``, variables in ``content`` have their values."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(_Located):
    """RUN, in shell or exec form.

    A ``script`` is a here-document with an interpreter of its own: the command is its path, see `RUN_DOCUMENTS`.
    ``mounts`` are the texts of ``--mount``, ``network`` and ``security`` those of their flags.
    """

    command: Command
    script: Document | None = None
    mounts: tuple[Word, ...] = ()
    network: Word | None = None
    security: Word | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(_Located):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(_Located):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(_Located):
    path: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class User(_Located):
    user: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(_Located):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(_Located):
    """EXPOSE; each word expands to any number of ports (`expansion.expand_words`, then `metadata.with_ports`)."""

    ports: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(_Located):
    paths: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(_Located):
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(_Located):
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(_Located):
    """SHELL: what shell forms after it are given to."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(_Located):
    signal: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(_Located):
    """HEALTHCHECK; ``test`` begins with ``NONE``, ``CMD`` or ``CMD-SHELL``. 0 stands for what is not written."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(_Located):
    """ONBUILD; ``trigger`` is the text of the instruction that a build on this image begins with."""

    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(_Located):
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


@dataclass(frozen=True, slots=True)
class StageText:
    """A FROM and what follows it up to the next."""

    base: From
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file: the ARGs before the first FROM, at least one stage, and its escape character."""

    global_args: tuple[Arg, ...]
    stages: tuple[StageText, ...]
    escape: str = "\\"


def is_remote(source: str) -> bool:
    """True for a source of ADD that is a URL or a git repository, not a path of the build context."""
    return source.startswith(("http://", "https://", "git://", "ssh://", "git@", "github.com/"))
