"""What the command line gives to a build beside its context: named contexts, secrets and SSH agents."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from builder.contexts.locations import (
    DirectoryContext,
    GitOptions,
    MainContext,
    NamedContext,
    parse_context,
    parse_named_context,
)
from builder.options import SecretFile, SecretText

_GIT = ("branch", "single-branch", "depth", "recurse-submodules", "insecure-skip-tls")
"""Kaniko's; of one branch and one commit is always all that is fetched, so that two of them change nothing."""


def named_contexts(texts: Iterable[str]) -> dict[str, NamedContext]:
    """``--build-context NAME=…`` by the names in lower case. Raises click.UsageError."""
    contexts: dict[str, NamedContext] = {}
    for text in texts:
        name, _, place = text.partition("=")
        if not name or not place:
            raise click.UsageError(f"--build-context {text!r}: expected NAME=DIRECTORY or NAME=URL")
        contexts[name.lower()] = _named_context(name, place)
    return contexts


def _named_context(name: str, place: str) -> NamedContext:
    try:
        context = parse_named_context(place)
    except ValueError as error:
        raise click.UsageError(f"--build-context {name}: {error}") from error
    if isinstance(context, DirectoryContext) and not context.path.is_dir():
        raise click.UsageError(f"--build-context {name}: expected a directory: {context.path} is none")
    return context


def main_context(text: str, git_texts: Iterable[str], environ: Mapping[str, str]) -> MainContext:
    """What ``--context`` names. Raises click.UsageError."""
    try:
        options = _git_options(git_texts)
        context = parse_context(text, options, git_scheme=environ.get("GIT_PULL_METHOD") or "https")
    except ValueError as error:
        raise click.UsageError(f"--context: {error}") from error
    if isinstance(context, DirectoryContext) and not context.path.is_dir():
        raise click.UsageError(f"the context {context.path} is not a directory")
    return context


def _git_options(texts: Iterable[str]) -> GitOptions:
    """``--git NAME=VALUE``, several in one or one each."""
    told: dict[str, str] = {}
    for text in texts:
        for item in text.split(","):
            name, _, value = item.partition("=")
            if name not in _GIT:
                raise click.UsageError(f"--git {item}: expected one of {', '.join(_GIT)}")
            told[name] = value
    for name, value in told.items():
        if name not in ("branch", "depth") and value not in ("true", "false"):
            raise click.UsageError(f"--git {name}={value}: expected true or false")
    return GitOptions(
        branch=told.get("branch", ""),
        submodules=told.get("recurse-submodules", "true") == "true",
        skip_tls_verify=told.get("insecure-skip-tls", "false") == "true",
    )


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
