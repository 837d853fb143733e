"""Instructions as text again, each on one line (and its here-documents below): the parser's inverse, for tests."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from builder.dockerfile.heredocs import marks_in
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Dockerfile,
    Document,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Pair,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Word,
    Workdir,
)
from builder.dockerfile.words import SPACE, quoted_words


def show_file(dockerfile: Dockerfile) -> str:
    """A whole file."""
    lines = [f"# escape={dockerfile.escape}", *(show(arg, dockerfile.escape) for arg in dockerfile.global_args)]
    for stage in dockerfile.stages:
        lines += [show(instruction, dockerfile.escape) for instruction in (stage.base, *stage.instructions)]
    return "\n".join(lines) + "\n"


def show(instruction: From | Instruction, escape: str) -> str:
    """One instruction; the last line has no end."""
    keyword = type(instruction).__name__.upper()
    match instruction:
        case From():
            name = f" AS {instruction.name}" if instruction.name else ""
            return f"FROM {_flags(platform=instruction.platform)}{instruction.image.text}{name}"
        case Arg():
            shown = (
                a.name.text if a.default is None else f"{a.name.text}={a.default.text}" for a in instruction.arguments
            )
            return f"ARG {' '.join(shown)}"
        case Env() | Label():
            return f"{keyword} {_pairs(instruction.pairs, escape)}"
        case Run():
            return _run(instruction)
        case Copy() | Add():
            return _copied(instruction)
        case Workdir(path=word) | User(user=word) | StopSignal(signal=word):
            return f"{keyword} {word.text}"
        case Expose(ports=words):
            return f"EXPOSE {' '.join(word.text for word in words)}"
        case Volume(paths=words):
            return f"VOLUME {_words(words)}"
        case Cmd(command=command) | Entrypoint(command=command):
            return f"{keyword} {_command(command)}"
        case Shell():
            return f"SHELL {json.dumps(instruction.argv)}"
        case HealthCheck():
            return _health_check(instruction)
        case OnBuild():
            return f"ONBUILD {instruction.trigger}"
        case Maintainer():
            return f"MAINTAINER {instruction.name}"


def bare(value: Any) -> Any:
    """A value of the parser as plain data, without places and sources."""
    if isinstance(value, Word):
        return value.text
    if isinstance(value, tuple):
        return [bare(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    fields = (name for name in value.__struct_fields__ if name not in ("span", "source"))
    return {"": type(value).__name__} | {name: bare(getattr(value, name)) for name in fields}


def _pairs(pairs: tuple[Pair, ...], escape: str) -> str:
    """``key=value``, or the old form for a value whose blanks nothing protects."""
    if len(pairs) == 1 and len(quoted_words(f"x{pairs[0].value.text}", 0, escape)) != 1:
        return f"{pairs[0].key.text} {pairs[0].value.text}"
    return " ".join(f"{pair.key.text}={pair.value.text}" for pair in pairs)


def _flags(**values: Word | tuple[Word, ...] | bool | str | None) -> str:
    """``--name="value" `` for each that is given; a switch is on or off, or given by None not at all."""
    shown = ""
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, bool):
                one = str(one).lower()
            if one is not None:
                text = one.text if isinstance(one, Word) else one
                quoted = text.replace("\\", "\\\\").replace('"', '\\"')
                shown += f'--{name.strip("_").replace("_", "-")}="{quoted}" '
    return shown


def _words(words: tuple[Word, ...]) -> str:
    """As they are, or as JSON where one of them would not stay one word."""
    texts = [word.text for word in words]
    plain = all(text and not set(text) & set(SPACE) for text in texts) and not texts[0].startswith(("[", "--"))
    continued = texts[-1].endswith(("\\", "`"))
    return " ".join(texts) if plain and not continued else json.dumps(texts)


def _command(command: Command) -> str:
    return json.dumps(command.argv) if isinstance(command, ExecForm) else command.text


def _document(document: Document) -> str:
    return f"\n{document.content}{document.name}"


def _run(run: Run) -> str:
    start = "RUN " + _flags(mount=run.mounts, network=run.network, security=run.security)
    if run.script is not None:
        return f"{start}<<{run.script.name}{_document(run.script)}"
    if not isinstance(run.command, ShellForm) or "\n" not in run.command.text:
        return start + _command(run.command)
    if not run.command.text.endswith("\n") and marks_in(start + run.command.text.partition("\n")[0]):
        return start + run.command.text  # documents that the shell reads itself
    return f"{start}<<SCRIPT{_document(Document('SCRIPT', run.command.text, expand=False))}"


def _copied(instruction: Copy | Add) -> str:
    flags = {"chown": instruction.chown, "chmod": instruction.chmod, "exclude": instruction.excludes}
    if isinstance(instruction, Copy):
        start = "COPY " + _flags(**flags, from_=instruction.from_, link=instruction.link, parents=instruction.parents)
    else:
        start = "ADD " + _flags(
            **flags,
            link=instruction.link,
            checksum=instruction.checksum,
            keep_git_dir=instruction.keep_git_dir,
            unpack=instruction.unpack,
        )
    if not instruction.documents:
        return start + _words((*instruction.sources, instruction.destination))
    marks = [f"<<{doc.name}" if doc.expand else f'<<"{doc.name}"' for doc in instruction.documents]
    sources = [word.text for word in instruction.sources]
    bodies = "".join(_document(document) for document in instruction.documents)
    return start + " ".join((*sources, *marks, instruction.destination.text)) + bodies


def _health_check(check: HealthCheck) -> str:
    lengths = {"interval": check.interval_ns, "timeout": check.timeout_ns}
    lengths |= {"start_period": check.start_period_ns, "start_interval": check.start_interval_ns}
    flags = _flags(**{name: f"{ns}ns" for name, ns in lengths.items() if ns})
    flags += _flags(retries=str(check.retries) if check.retries else None)
    kind, *command = check.test
    if kind == "NONE":
        return f"HEALTHCHECK {flags}NONE"
    return f"HEALTHCHECK {flags}CMD {command[0] if kind == 'CMD-SHELL' else json.dumps(command)}"
