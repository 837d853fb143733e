"""A Dockerfile's text → `instructions.Dockerfile`. What cannot be understood is refused with its place in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from builder.dockerfile.directives import read_directives
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Argument,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Instruction,
    Label,
    Pair,
    Run,
    Shell,
    StageText,
    StopSignal,
    User,
    Volume,
    Word,
    Workdir,
    is_remote,
)
from builder.dockerfile.lines import SPACE, Text, logical_lines, read_text
from builder.dockerfile.statement import Statement, did_you_mean, read_statement, take_flags
from builder.dockerfile.words import Token, find_heredoc
from builder.errors import DockerfileError

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_UNSUPPORTED = ("HEALTHCHECK", "MAINTAINER", "ONBUILD")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


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
            _refuse_same_name(statement, instruction, [base for base, _ in stages])
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


def _no_stage(text: Text, has_args: bool) -> DockerfileError:
    what = "no FROM in this file" if has_args else "this file has no instructions"
    return DockerfileError(what, text.span(0))


def _refuse_same_name(statement: Statement, base: From, earlier: list[From]) -> None:
    if base.name and any(base.name == other.name for other in earlier):
        raise statement.error(f"stage name {base.name!r} is used twice", statement.tokens()[2])


def _instruction(statement: Statement) -> From | Instruction:
    keyword = statement.keyword
    parse_arguments = _PARSERS.get(keyword.text)
    if parse_arguments is None:
        if keyword.text in _UNSUPPORTED:
            raise statement.error(f"{keyword.text} is not supported yet", keyword)
        hint = did_you_mean(keyword.text, tuple(_PARSERS))
        raise statement.error(f"unknown instruction {keyword.text}{hint}", keyword)
    if keyword.text in _WITH_HEREDOCS:
        heredoc = find_heredoc(statement.line.text, keyword.stop, statement.escape)
        if heredoc:
            raise statement.error("here-documents are not supported yet", heredoc)
    return parse_arguments(statement)


def _from(statement: Statement) -> From:
    flags = take_flags(statement, "platform")
    tokens = statement.tokens()
    if len(tokens) not in (1, 3) or (len(tokens) == 3 and tokens[1].text.upper() != "AS"):
        raise statement.error("FROM takes one argument, or three: FROM IMAGE AS NAME")
    name = tokens[2].text.lower() if len(tokens) == 3 else ""
    if name and not _STAGE_NAME.match(name):
        message = f"invalid stage name {tokens[2].text!r}: a letter, then letters, digits, '-', '_' or '.'"
        raise statement.error(message, tokens[2])
    if name == "scratch":
        raise statement.error("a stage cannot be called scratch: that is the empty image", tokens[2])
    image = statement.word(tokens[0])
    return From(span=statement.span, source=statement.source, image=image, platform=flags.get("platform"), name=name)


def _arg(statement: Statement) -> Arg:
    take_flags(statement)
    tokens = statement.quoted_tokens()
    if not tokens:
        raise statement.error("ARG needs at least one name")
    arguments = tuple(_argument(statement, token) for token in tokens)
    return Arg(span=statement.span, source=statement.source, arguments=arguments)


def _argument(statement: Statement, token: Token) -> Argument:
    if "=" not in token.text:
        return Argument(statement.word(token), None)
    pair = _pair(statement, token)
    return Argument(pair.key, pair.value)


def _pair(statement: Statement, token: Token) -> Pair:
    key, equals, value = token.text.partition("=")
    if not equals:
        raise statement.error(f"no = in {token.text!r}: expected name=value", token)
    if not key:
        raise statement.error(f"{statement.keyword.text} needs a name before the =", token)
    middle = token.start + len(key)
    return Pair(
        statement.word(Token(key, token.start, middle)),
        statement.word(Token(value, middle + 1, token.stop)),
    )


def _pairs(statement: Statement) -> tuple[Pair, ...]:
    """``a=b c=d``, or the old form ``a b`` where all behind the first blanks is the value."""
    take_flags(statement)
    tokens = statement.quoted_tokens()
    if not tokens:
        raise statement.error(f"{statement.keyword.text} needs at least one name=value")
    if "=" in tokens[0].text:
        return tuple(_pair(statement, token) for token in tokens)
    rest = statement.rest()
    blanks = _BLANKS.search(rest.text)
    if blanks is None:
        raise statement.error(f"{statement.keyword.text} needs a value: name=value", rest)
    key, value = rest.text[: blanks.start()], rest.text[blanks.end() :]
    return (
        Pair(
            statement.word(Token(key, rest.start, rest.start + blanks.start())),
            statement.word(Token(value, rest.start + blanks.end(), rest.stop)),
        ),
    )


def _env(statement: Statement) -> Env:
    return Env(span=statement.span, source=statement.source, pairs=_pairs(statement))


def _label(statement: Statement) -> Label:
    return Label(span=statement.span, source=statement.source, pairs=_pairs(statement))


def _run(statement: Statement) -> Run:
    take_flags(statement)
    command = statement.command()
    if command == ExecForm(()):
        raise statement.error("RUN needs a command")
    return Run(span=statement.span, source=statement.source, command=command)


def _cmd(statement: Statement) -> Cmd:
    take_flags(statement)
    return Cmd(span=statement.span, source=statement.source, command=statement.command())


def _entrypoint(statement: Statement) -> Entrypoint:
    take_flags(statement)
    return Entrypoint(span=statement.span, source=statement.source, command=statement.command())


def _copied(statement: Statement) -> tuple[tuple[Word, ...], Word]:
    words = statement.words()
    if len(words) < 2:
        raise statement.error(f"{statement.keyword.text} needs at least one source and a destination")
    return tuple(words[:-1]), words[-1]


def _copy(statement: Statement) -> Copy:
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
        from_=flags.get("from"),
        chown=flags.get("chown"),
        chmod=flags.get("chmod"),
    )


def _add(statement: Statement) -> Add:
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
        chown=flags.get("chown"),
        chmod=flags.get("chmod"),
    )


def _workdir(statement: Statement) -> Workdir:
    take_flags(statement)
    return Workdir(span=statement.span, source=statement.source, path=statement.only_word("a path"))


def _user(statement: Statement) -> User:
    take_flags(statement)
    return User(span=statement.span, source=statement.source, user=statement.only_word("a user"))


def _stop_signal(statement: Statement) -> StopSignal:
    take_flags(statement)
    return StopSignal(span=statement.span, source=statement.source, signal=statement.only_word("a signal"))


def _expose(statement: Statement) -> Expose:
    take_flags(statement)
    ports = tuple(statement.word(token) for token in statement.tokens())
    if not ports:
        raise statement.error("EXPOSE needs at least one port")
    return Expose(span=statement.span, source=statement.source, ports=ports)


def _volume(statement: Statement) -> Volume:
    take_flags(statement)
    paths = tuple(Word(word.text.strip(SPACE), word.span) for word in statement.words())
    if not paths:
        raise statement.error("VOLUME needs at least one path")
    if not all(path.text for path in paths):
        raise statement.error("VOLUME cannot be an empty path")
    return Volume(span=statement.span, source=statement.source, paths=paths)


def _shell(statement: Statement) -> Shell:
    take_flags(statement)
    argv = statement.strings()
    if not argv:
        raise statement.error('SHELL needs a JSON array with a program: SHELL ["program", "argument"]')
    return Shell(span=statement.span, source=statement.source, argv=argv)


_PARSERS: Mapping[str, Callable[[Statement], From | Instruction]] = MappingProxyType(
    {
        "FROM": _from,
        "ARG": _arg,
        "ENV": _env,
        "RUN": _run,
        "COPY": _copy,
        "ADD": _add,
        "WORKDIR": _workdir,
        "USER": _user,
        "LABEL": _label,
        "EXPOSE": _expose,
        "VOLUME": _volume,
        "CMD": _cmd,
        "ENTRYPOINT": _entrypoint,
        "SHELL": _shell,
        "STOPSIGNAL": _stop_signal,
    }
)
