"""A Dockerfile's text → `instructions.Dockerfile`. What cannot be understood is refused with its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from builder.dockerfile import config_syntax as config
from builder.dockerfile import work_syntax as work
from builder.dockerfile.directives import read_directives
from builder.dockerfile.instructions import Arg, Dockerfile, From, Instruction, OnBuild, StageText
from builder.dockerfile.lines import Text, logical_lines, read_text
from builder.dockerfile.statement import Statement, did_you_mean, read_statement, take_flags
from builder.errors import DockerfileError

_NO_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")


def parse(data: bytes | str, file: str) -> Dockerfile:
    """The Dockerfile in ``data``; ``file`` is its name in errors.

    Raises DockerfileError.
    """
    text = read_text(data, file)
    escape = read_directives(text).escape
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in logical_lines(text, escape):
        statement = read_statement(line, escape)
        instruction = _instruction(statement)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise statement.error(f"{statement.keyword.text} before the first FROM", statement.keyword)
    if not stages:
        raise _no_stage(text, bool(global_args))
    return Dockerfile(tuple(global_args), tuple(StageText(base, tuple(rest)) for base, rest in stages), escape)


def parse_trigger(trigger: str, file: str) -> Instruction:
    """The instruction that an ONBUILD has put off; ``file`` says in errors where it comes from.

    Raises DockerfileError.
    """
    text = read_text(trigger, file)
    lines = tuple(logical_lines(text, "\\"))
    if len(lines) != 1:
        raise DockerfileError("an ONBUILD trigger must be one instruction", text.span(0))
    return _trigger(read_statement(lines[0], "\\"))


def _no_stage(text: Text, has_args: bool) -> DockerfileError:
    what = "no FROM in this file" if has_args else "this file has no instructions"
    return DockerfileError(what, text.span(0))


def _instruction(statement: Statement) -> From | Instruction:
    keyword = statement.keyword
    parse_arguments = _PARSERS.get(keyword.text)
    if parse_arguments is None:
        hint = did_you_mean(keyword.text, tuple(_PARSERS))
        raise statement.error(f"unknown instruction {keyword.text}{hint}", keyword)
    return parse_arguments(statement)


def _on_build(statement: Statement) -> OnBuild:
    """The trigger is read now, so that its faults are told where they were made, and again where it is used."""
    take_flags(statement)
    if not statement.arguments:
        raise statement.error("ONBUILD needs an instruction")
    _trigger(read_statement(statement.line, statement.escape, statement.start))
    trigger = "\n".join((statement.arguments, *(f"{doc.text}{doc.mark.name}" for doc in statement.line.heredocs)))
    return OnBuild(span=statement.span, source=statement.source, trigger=trigger)


def _trigger(statement: Statement) -> Instruction:
    if statement.keyword.text in _NO_TRIGGERS:
        raise statement.error(f"{statement.keyword.text} cannot be an ONBUILD trigger", statement.keyword)
    instruction = _instruction(statement)
    if isinstance(instruction, From):
        raise AssertionError("FROM was refused before")
    return instruction


_PARSERS: Mapping[str, Callable[[Statement], From | Instruction]] = MappingProxyType(
    {
        "FROM": config.parse_from,
        "ARG": config.parse_arg,
        "ENV": config.parse_env,
        "RUN": work.parse_run,
        "COPY": work.parse_copy,
        "ADD": work.parse_add,
        "WORKDIR": config.parse_workdir,
        "USER": config.parse_user,
        "LABEL": config.parse_label,
        "EXPOSE": config.parse_expose,
        "VOLUME": config.parse_volume,
        "CMD": config.parse_cmd,
        "ENTRYPOINT": config.parse_entrypoint,
        "SHELL": config.parse_shell,
        "STOPSIGNAL": config.parse_stop_signal,
        "HEALTHCHECK": config.parse_health_check,
        "ONBUILD": _on_build,
        "MAINTAINER": config.parse_maintainer,
    }
)
