"""``crossdock logout``: forgets who we are to a registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from cache.command_line import Values
from cache.login_cli import REGISTRY, SETTINGS, credential_file, registry_host, run_command

_COMMAND = click.Command(
    "logout",
    callback=lambda **values: values,
    help="Forget the credentials of a registry.",
    context_settings=SETTINGS,
    params=[REGISTRY],
)


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock logout``; returns 1 when nothing was kept for the registry."""
    return run_command(_COMMAND, arguments, _log_out)


def _log_out(values: Values) -> int:
    host = registry_host(values)
    if not credential_file().erase(host):
        print(f"error: nothing was kept for {host}", file=sys.stderr)
        return 1
    print(f"logged out of {host}")
    return 0
