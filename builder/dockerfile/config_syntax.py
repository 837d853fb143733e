"""The instructions that change what an image says of itself, and FROM and ARG: text → typed values."""

from __future__ import annotations

import re

from msgspec.structs import replace

from builder.dockerfile.durations import parse_duration
from builder.dockerfile.instructions import (
    Arg,
    Argument,
    Cmd,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    HealthCheck,
    Label,
    Maintainer,
    Pair,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Word,
    Workdir,
)
from builder.dockerfile.statement import Statement, did_you_mean, take_flags
from builder.dockerfile.words import SPACE, Token
from builder.errors import DockerfileError

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_SHORTEST_NS = 1_000_000


def parse_from(statement: Statement) -> From:
    flags = take_flags(statement, "platform")
    tokens = statement.tokens()
    if len(tokens) not in (1, 3) or (len(tokens) == 3 and tokens[1].text.upper() != "AS"):
        raise statement.error("FROM takes one argument, or three: FROM IMAGE AS NAME")
    name = tokens[2].text.lower() if len(tokens) == 3 else ""
    if name and not _STAGE_NAME.match(name):
        message = f"invalid stage name {tokens[2].text!r}: a letter, then letters, digits, '-', '_' or '.'"
        raise statement.error(message, tokens[2])
    image = statement.word(tokens[0])
    return From(span=statement.span, source=statement.source, image=image, platform=flags.word("platform"), name=name)


def parse_arg(statement: Statement) -> Arg:
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


def parse_env(statement: Statement) -> Env:
    return Env(span=statement.span, source=statement.source, pairs=_pairs(statement))


def parse_label(statement: Statement) -> Label:
    return Label(span=statement.span, source=statement.source, pairs=_pairs(statement))


def parse_cmd(statement: Statement) -> Cmd:
    take_flags(statement)
    return Cmd(span=statement.span, source=statement.source, command=statement.command())


def parse_entrypoint(statement: Statement) -> Entrypoint:
    take_flags(statement)
    return Entrypoint(span=statement.span, source=statement.source, command=statement.command())


def parse_workdir(statement: Statement) -> Workdir:
    take_flags(statement)
    return Workdir(span=statement.span, source=statement.source, path=statement.only_word("a path"))


def parse_user(statement: Statement) -> User:
    take_flags(statement)
    return User(span=statement.span, source=statement.source, user=statement.only_word("a user"))


def parse_stop_signal(statement: Statement) -> StopSignal:
    take_flags(statement)
    return StopSignal(span=statement.span, source=statement.source, signal=statement.only_word("a signal"))


def parse_expose(statement: Statement) -> Expose:
    take_flags(statement)
    ports = tuple(statement.word(token) for token in statement.tokens())
    if not ports:
        raise statement.error("EXPOSE needs at least one port")
    return Expose(span=statement.span, source=statement.source, ports=ports)


def parse_volume(statement: Statement) -> Volume:
    take_flags(statement)
    paths = tuple(Word(word.text.strip(SPACE), word.span) for word in statement.words())
    if not paths:
        raise statement.error("VOLUME needs at least one path")
    if not all(path.text for path in paths):
        raise statement.error("VOLUME cannot be an empty path")
    return Volume(span=statement.span, source=statement.source, paths=paths)


def parse_shell(statement: Statement) -> Shell:
    take_flags(statement)
    argv = statement.strings()
    if not argv:
        raise statement.error('SHELL needs a JSON array with a program: SHELL ["program", "argument"]')
    return Shell(span=statement.span, source=statement.source, argv=argv)


def parse_maintainer(statement: Statement) -> Maintainer:
    take_flags(statement)
    name = statement.only_word("a name")
    return Maintainer(span=statement.span, source=statement.source, name=name.text)


_DURATIONS = ("interval", "timeout", "start-period", "start-interval")


def parse_health_check(statement: Statement) -> HealthCheck:
    """The flags of ``HEALTHCHECK NONE`` mean nothing, as in BuildKit."""
    flags = take_flags(statement, *_DURATIONS, "retries")
    tokens = statement.tokens()
    if not tokens:
        raise statement.error("HEALTHCHECK needs CMD and a command, or NONE")
    kind = tokens[0].text.upper()
    durations = {name: _duration(flags.word(name), name) for name in _DURATIONS}
    retries = _retries(flags.word("retries"))
    if kind == "NONE":
        if len(tokens) > 1:
            raise statement.error("HEALTHCHECK NONE takes no arguments", tokens[1])
        return HealthCheck(span=statement.span, source=statement.source, test=("NONE",))
    if kind != "CMD":
        hint = did_you_mean(kind, ("CMD", "NONE"))
        raise statement.error(f"HEALTHCHECK {tokens[0].text}: expected CMD or NONE{hint}", tokens[0])
    return HealthCheck(
        span=statement.span,
        source=statement.source,
        test=_test(statement, tokens[0]),
        interval_ns=durations["interval"],
        timeout_ns=durations["timeout"],
        start_period_ns=durations["start-period"],
        start_interval_ns=durations["start-interval"],
        retries=retries,
    )


def _test(statement: Statement, kind: Token) -> tuple[str, ...]:
    text = statement.line.text
    start = kind.stop + len(text[kind.stop :]) - len(text[kind.stop :].lstrip(SPACE))
    command = replace(statement, start=start)
    if not command.arguments or command.strings() == ():
        raise statement.error("HEALTHCHECK CMD needs a command", kind)
    match command.command():
        case ExecForm(argv):
            return ("CMD", *argv)
        case ShellForm(line):
            return ("CMD-SHELL", line)


def _duration(word: Word | None, name: str) -> int:
    """The nanoseconds of a flag of HEALTHCHECK, 0 when it is not given."""
    if word is None:
        return 0
    try:
        duration_ns = parse_duration(word.text)
    except ValueError as error:
        raise DockerfileError(f"--{name}: {error}", word.span) from None
    if duration_ns and duration_ns < _SHORTEST_NS:
        raise DockerfileError(f"--{name}={word.text}: expected at least 1ms", word.span)
    return duration_ns


def _retries(word: Word | None) -> int:
    if word is None:
        return 0
    if not (word.text.isascii() and word.text.isdigit() and len(word.text) <= 10 and int(word.text) < 2**31):
        raise DockerfileError(f"--retries={word.text}: expected a number from 0", word.span)
    return int(word.text)
