"""``crossdock cache``: what looks after a store, each command imported with the others' shared parts only."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import click
import structlog

from cache.command_line import exit_status
from cache.errors import CacheError
from cache.upkeep.commands import LS, STATS
from cache.upkeep.gc_command import GC
from cache.upkeep.verify_command import VERIFY

COMMANDS = (STATS, LS, VERIFY, GC)
"""Each callback is a coroutine function that returns an exit status."""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_COMMAND = click.Group(
    "crossdock cache",
    commands={command.name or "": command for command in COMMANDS},
    help="Look after the store of a proxy, a builder or a warmer.",
    context_settings=_SETTINGS,
)


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock cache``; returns the command's exit status, 1 for a store that fails, 2 for wrong usage."""
    structlog.configure(  # warnings, to where they do not mix with what was asked for
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )

    def run() -> int:
        try:
            started = _COMMAND.main(list(arguments), prog_name="crossdock cache", standalone_mode=False)
            return started if isinstance(started, int) else asyncio.run(started)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output has enough
            return 0

    return exit_status(run, CacheError)
