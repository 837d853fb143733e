"""What the command line gives to a build beside its context: named contexts, secrets and SSH agents."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from builder.options import DirectoryContext, ImageContext, NamedContext, SecretFile, SecretText
from cache.oci.errors import InvalidReference
from cache.oci.reference import Reference

_IMAGE = "docker-image://"


def named_contexts(texts: Iterable[str]) -> dict[str, NamedContext]:
    """``--build-context NAME=…`` by the names in lower case. Raises click.UsageError."""
    contexts: dict[str, NamedContext] = {}
    for text in texts:
        name, _, place = text.partition("=")
        if not name or not place:
            raise click.UsageError(f"--build-context {text!r}: expected NAME=DIRECTORY or NAME={_IMAGE}IMAGE")
        contexts[name.lower()] = _context(name, place)
    return contexts


def _context(name: str, place: str) -> NamedContext:
    if place.startswith(_IMAGE):
        try:
            return ImageContext(Reference.parse(place.removeprefix(_IMAGE)))
        except InvalidReference as error:
            raise click.UsageError(f"--build-context {name}: {error}") from error
    path = Path(place).absolute()
    if "://" in place or not path.is_dir():
        raise click.UsageError(f"--build-context {name}: expected a directory or {_IMAGE}IMAGE")
    return DirectoryContext(path)


def secrets(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, SecretFile | SecretText]:
    """``--secret id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`` by name. Raises click.UsageError."""
    found: dict[str, SecretFile | SecretText] = {}
    for text in texts:
        fields = _fields(text)
        name = fields.get("id", "")
        if not name:
            raise click.UsageError("--secret: id=NAME is missing")
        file, variable = fields.get("src") or fields.get("source"), fields.get("env")
        if fields.get("type") == "env" or (not file and not variable and name in environ):
            variable, file = variable or file or name, None
        if variable and file:
            raise click.UsageError(f"--secret id={name}: give src or env, not both")
        found[name] = _from_environment(name, variable, environ) if variable else SecretFile(Path(file or name))
    return found


def _from_environment(name: str, variable: str, environ: Mapping[str, str]) -> SecretText:
    if variable not in environ:
        raise click.UsageError(f"--secret id={name}: the environment has no {variable}")
    return SecretText(environ[variable])


def _fields(text: str) -> dict[str, str]:
    (row,) = csv.reader([text])
    fields: dict[str, str] = {}
    for item in row:
        key, equals, value = item.partition("=")
        if not equals or key not in ("id", "src", "source", "env", "type"):
            raise click.UsageError(f"--secret: unknown field {key!r}: expected id, src, env or type")
        fields[key] = value
    if fields.get("type", "file") not in ("file", "env"):
        raise click.UsageError(f"--secret: type={fields['type']}: expected file or env")
    return fields


def agents(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, Path]:
    """``--ssh default|NAME[=SOCKET]`` by name; without a socket it is SSH_AUTH_SOCK's. Raises click.UsageError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, socket = text.partition("=")
        socket = socket or environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            raise click.UsageError(f"--ssh {name}: no agent: SSH_AUTH_SOCK is not set")
        path = Path(socket).absolute()
        if not path.is_socket():
            raise click.UsageError(f"--ssh {name}: {socket} is not the socket of an agent; add keys to one by ssh-add")
        found[name or "default"] = path
    return found
