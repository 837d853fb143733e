"""A table of flags as a command, and the values that were given to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

import click

from cache.flags import Effect, Flag, Kind, in_click_s_words

Values = Mapping[str, object]
"""By the flags' fields: bool or None, text, or a tuple of texts."""
INTERRUPTED = 130
"""As shells have it."""


def exit_status(command: Callable[[], int], *failures: type[Exception]) -> int:
    """What the command returns; click's status for wrong usage, 1 for ``failures``, 130 when interrupted: all are said
    on standard error."""
    try:
        return command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except failures as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def make_command(name: str, summary: str, flags: Sequence[Flag], argument: click.Argument) -> click.Command:
    """The command; its result is the parsed values. Flags that have no effect are not in its help."""
    return click.Command(
        name,
        params=[argument, *(_option(flag) for flag in flags)],
        callback=lambda **values: values,
        help=summary,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _option(flag: Flag) -> click.Option:
    return click.Option(
        [*flag.spellings, flag.field],
        type=click.BOOL if flag.kind is Kind.BOOL else click.STRING,
        multiple=flag.kind is Kind.LIST,
        metavar="[=true|false]" if flag.kind is Kind.BOOL else None,
        default=flag.default or None,
        envvar=flag.env or None,
        help=flag.help,
        hidden=flag.effect in (Effect.IGNORED, Effect.REFUSED),
    )


def parse(command: click.Command, flags: Sequence[Flag], arguments: Sequence[str]) -> Values | int:
    """The values, or the exit status where the help was asked for.

    Raises click.ClickException, also for a flag that is refused.
    """
    words = in_click_s_words(arguments, flags)
    values = command.main(words, prog_name=f"crossdock {command.name}", standalone_mode=False)
    if isinstance(values, int):
        return values
    given: Values = values
    for flag in flags:
        if flag.effect is Effect.REFUSED and given[flag.field]:
            raise click.UsageError(f"--{flag.name}: {flag.help}")
    return given


def notes(values: Values, flags: Sequence[Flag]) -> list[str]:
    """What to say of the flags that were given and have no effect."""
    idle = (flag for flag in flags if flag.effect is Effect.IGNORED and values[flag.field] not in (None, ()))
    return [f"note: --{flag.name} changes nothing here: {flag.help}" for flag in idle]


def text_of(values: Values, field: str) -> str:
    """The text given, "" for none."""
    value = values[field]
    return value if isinstance(value, str) else ""


def texts_of(values: Values, field: str) -> tuple[str, ...]:
    """The texts given, in order."""
    value = values[field]
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def count_of(values: Values, field: str, least: int = 0) -> int:
    """The number given. Raises click.UsageError."""
    text = text_of(values, field)
    if not text.isdecimal() or int(text) < least:
        raise click.UsageError(f"--{field.replace('_', '-')} {text!r}: expected a number from {least} on")
    return int(text)
