"""``crossdock login``: checks who we are to a registry, and keeps it in docker's ``config.json``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from cache.command_line import Values, exit_status
from cache.oci.client import RegistryClient
from cache.oci.credential_file import CredentialFile
from cache.oci.credentials import Credential
from cache.oci.errors import Denied, OCIError
from cache.oci.http_proxy import proxy_for
from cache.oci.reference import DOCKER_HUB, canonical_host
from cache.oci.registries import EVERY_HOST, base_url
from cache.oci.tls import HostTls
from cache.oci.transport import Transport


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock login``; returns 1 when the registry refuses, 2 for wrong usage."""
    return run_command(_LOGIN, arguments, _log_in)


def run_command(command: click.Command, arguments: Sequence[str], do: Callable[[Values], int]) -> int:
    """Parses the arguments, does it and returns the exit status."""

    def run() -> int:
        values = command.main(list(arguments), prog_name=f"crossdock {command.name}", standalone_mode=False)
        return values if isinstance(values, int) else do(values)

    return exit_status(run, OCIError)


REGISTRY = click.Argument(["registry"], required=False, default=DOCKER_HUB, metavar="[HOST[:PORT]]")
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_LOGIN = click.Command(
    "login",
    callback=lambda **values: values,
    help="Check a user name and password at a registry, and keep them in docker's config.json.",
    context_settings=SETTINGS,
    params=[
        REGISTRY,
        click.Option(["-u", "--username"], required=True, help="The user name."),
        click.Option(["-p", "--password"], help="The password; others on this machine can see it."),
        click.Option(["--password-stdin"], is_flag=True, help="Read the password from standard input."),
        click.Option(["--insecure"], is_flag=True, help="Reach the registry over plain HTTP."),
        click.Option(["--skip-tls-verify"], is_flag=True, help="Accept any certificate."),
    ],
)


def _log_in(values: Values) -> int:
    host = registry_host(values)
    credential = Credential(str(values["username"]), _password(values))
    asyncio.run(_verify(host, credential, insecure=bool(values["insecure"]), any_tls=bool(values["skip_tls_verify"])))
    where = credential_file().store(host, credential)
    print(f"logged in to {host} as {credential.username}; kept in {where}")
    return 0


async def _verify(host: str, credential: Credential, *, insecure: bool, any_tls: bool) -> None:
    """Shows the credentials to the registry. Raises OCIError."""
    tls = HostTls(EVERY_HOST if any_tls else frozenset())
    async with Transport(tls=tls, proxy_of=lambda url: proxy_for(url, os.environ)) as transport:
        url = base_url(host, EVERY_HOST if insecure else frozenset())
        try:
            await RegistryClient(transport, url, credential, name=host).ping()
        except Denied as error:
            raise OCIError(f"{host} refuses user {credential.username!r}: {error}") from error


def registry_host(values: Values) -> str:
    """The registry's host; of a URL its host."""
    text = str(values["registry"])
    return canonical_host(text.partition("://")[2 if "://" in text else 0].partition("/")[0])


def _password(values: Values) -> str:
    given, from_stdin = values["password"], bool(values["password_stdin"])
    if given and from_stdin:
        raise click.UsageError("give the password once: by --password or by --password-stdin")
    if from_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    else:
        password = str(given) if given else str(click.prompt("Password", hide_input=True, err=True))
    if not password:
        raise click.UsageError("the password is empty")
    return password


def credential_file() -> CredentialFile:
    """The user's own."""
    return CredentialFile.find(os.environ, Path(os.environ.get("HOME") or Path.home()))
