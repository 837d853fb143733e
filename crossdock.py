"""The command: a table of subcommands, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

SUBCOMMANDS = {
    "build": ("builder.cli", "Build an image from a Dockerfile and push it"),
    "login": ("cache.login_cli", "Check credentials at a registry and keep them"),
    "logout": ("cache.logout_cli", "Forget the credentials of a registry"),
    "push": ("builder.push_cli", "Push an image from an archive or a layout"),
    "proxy": ("proxy.cli", "Serve the registry proxy"),
    "cache": ("cache.upkeep.cli", "Look after a store: what it holds, whether it is whole"),
    "warm": ("builder.warm_cli", "Pull images into a proxy or a store before they are needed"),
}
CALLED_AS = {"executor": "build", "warmer": "warm"}
EXECUTOR_S = frozenset({"push", "login", "version", "help", "bake"})
"""What Kaniko's executor takes as its first argument to do something else than a build."""
VERSION = "0.1.0"


def usage() -> str:
    """The help text of the bare command."""
    rows = "\n".join(f"  {name:<8}{summary}" for name, (_, summary) in SUBCOMMANDS.items())
    more = "crossdock COMMAND --help lists a command's options."
    return f"Usage: crossdock COMMAND [OPTIONS]\n\nCommands:\n{rows}\n\n{more}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Called under the name ``executor`` or ``warmer`` (argv[0]) it is ``crossdock build`` or ``crossdock warm``.
    """
    program, *arguments = sys.argv if argv is None else argv
    called = os.path.basename(program)
    alias = None if called == "executor" and EXECUTOR_S & {*arguments[:1]} else CALLED_AS.get(called)
    name, arguments = (alias, arguments) if alias else (arguments[0] if arguments else "--help", arguments[1:])
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    if name in ("--version", "version"):
        print(f"crossdock {VERSION}")
        return 0
    if name not in SUBCOMMANDS:
        print(f"crossdock: unknown command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    entry = importlib.import_module(SUBCOMMANDS[name][0])
    return int(entry.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
