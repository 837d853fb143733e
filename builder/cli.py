"""``crossdock build``: arguments and environment → a build."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform as machine
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path

import click

from builder import cli_outputs, cli_sources, events, flags
from builder.contexts.locations import MainContext, TarFile
from builder.dockerfile.durations import parse_duration
from builder.errors import BuildError
from builder.options import (
    BuildOptions,
    CacheOptions,
    DockerfilePlace,
    Limits,
    RegistryOptions,
    StepSecrets,
)
from builder.progress import Style, progress_for
from cache.errors import CacheError
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.mirrors import Mirrors, parse_mirrors
from cache.oci.reference import Reference
from cache.units import parse_bytes

INTERRUPTED = 130
Values = Mapping[str, object]


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock build``; returns a failed RUN's own status, 2 for wrong usage, 1 for other errors."""
    try:
        values = _command().main(flags.explicit_booleans(arguments), prog_name="crossdock build", standalone_mode=False)
        return values if isinstance(values, int) else _build(values)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _command() -> click.Command:
    """The command that the table of flags describes; its result is the parsed values."""
    options = [_option(flag, hidden=False) for flag in flags.HONOURED]
    options += [_option(flag, hidden=True) for flag in flags.WITHOUT_MEANING]
    context = click.Argument(["context_argument"], required=False, metavar="[CONTEXT]")
    return click.Command(
        "build",
        params=[context, *options],
        callback=lambda **values: values,
        help="Build the image of a Dockerfile and push it.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _option(flag: flags.Flag, *, hidden: bool) -> click.Option:
    return click.Option(
        [*flag.spellings, flag.field],
        type=click.BOOL if flag.kind is flags.BOOL else click.STRING,
        multiple=flag.kind is flags.LIST,
        metavar="[=true|false]" if flag.kind is flags.BOOL else None,
        default=None if hidden or not flag.default else flag.default,
        envvar=flag.env or None,
        help=flag.help,
        hidden=hidden,
    )


def _build(values: Values) -> int:
    style = _style(_text(values, "progress"))
    from builder.build import run_build  # only a build that starts pays for importing the engine

    with contextlib.closing(progress_for(sys.stderr, os.environ.get("TERM", ""), style)) as progress:
        try:
            options = make_options(values, os.environ)
            for flag in flags.WITHOUT_MEANING:
                if values[flag.field] is not None:
                    progress(events.Note(f"note: --{flag.name} changes nothing here: {flag.help}"))
            asyncio.run(_until_signalled(run_build(options, os.environ, progress)))
        except (BuildError, CacheError, OCIError, OSError) as error:
            progress(events.Failed(_reason(error)))
            return error.exit_code if isinstance(error, BuildError) else 1
    return 0


def _reason(error: Exception) -> str:
    """What an error says; one of the machine, most likely a full disk, by what it is and where."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")


def _style(text: str) -> Style:
    try:
        return Style(text)
    except ValueError as error:
        raise click.UsageError(f"--progress {text}: expected auto, plain or json") from error


async def _until_signalled(build: Coroutine[None, None, None]) -> None:
    """Runs the build; SIGTERM ends it as Ctrl-C does, with everything cleaned up."""
    task = asyncio.ensure_future(build)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def make_options(values: Values, environ: Mapping[str, str]) -> BuildOptions:
    """The options that the flags and the environment ask for. Raises click.UsageError."""
    context, dockerfile = _context(values, environ), DockerfilePlace(str(values["dockerfile"]))
    if context == TarFile(None) and dockerfile.text == "-":
        raise click.UsageError("the standard input can be the context or the Dockerfile, not both")
    return BuildOptions(
        context=context,
        context_sub_path=_text(values, "context_sub_path"),
        dockerfile=dockerfile,
        targets=_texts(values, "target") or ("",),
        check_only=bool(values["check"]),
        dry_run=bool(values["dry_run"]),
        explain=bool(values["explain"]),
        contexts=cli_sources.named_contexts(_texts(values, "build_context")),
        secrets=StepSecrets(
            values=cli_sources.secrets(_texts(values, "secret"), environ),
            agents=cli_sources.agents(_texts(values, "ssh"), environ),
        ),
        build_args=_pairs(values, "build_arg", environ),
        labels=_pairs(values, "label", None),
        platforms=_platforms(values),
        build_platform=_platform(""),
        clamp_mtime_s=_clamp(values, environ),
        state_dir=Path(_text(values, "state_dir") or _default_state_dir(environ)).absolute(),
        rung=_rung(_text(values, "isolation")),
        cache=_cache(values),
        output=cli_outputs.output_options(values, _references(values, "destination")),
        registry=_registry(values),
        limits=_limits(values),
    )


def _text(values: Values, field: str) -> str:
    value = values[field]
    return value if isinstance(value, str) else ""


def _texts(values: Values, field: str) -> tuple[str, ...]:
    value = values[field]
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def _path(values: Values, field: str) -> Path | None:
    return Path(text).absolute() if (text := _text(values, field)) else None


def _context(values: Values, environ: Mapping[str, str]) -> MainContext:
    given, named = _text(values, "context_argument"), _text(values, "context")
    if given and named:
        raise click.UsageError("give the context once: as an argument or by --context")
    return cli_sources.main_context(given or named or ".", _texts(values, "git"), environ)


def _limits(values: Values) -> Limits:
    return Limits(
        unpacked_bytes=_bytes(values, "max_unpacked_bytes"),
        files=_count(values, "max_files"),
        download_bytes=_bytes(values, "max_download_bytes"),
        step_s=_step_s(_text(values, "step_timeout")),
    )


def _step_s(text: str) -> float | None:
    if not text:
        return None
    try:
        step_s = parse_duration(text) / 1e9
    except ValueError as error:
        raise click.UsageError(f"--step-timeout: {error}") from error
    if step_s <= 0:
        raise click.UsageError(f"--step-timeout {text}: expected more than nothing")
    return step_s


def _bytes(values: Values, field: str) -> int:
    text = _text(values, field)
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.UsageError(f"--{field.replace('_', '-')}: {error}") from error


def _count(values: Values, field: str) -> int:
    text = _text(values, field)
    if not text.isdecimal() or not int(text):
        raise click.UsageError(f"--{field.replace('_', '-')} {text!r}: expected a number")
    return int(text)


def _pairs(values: Values, field: str, environ: Mapping[str, str] | None) -> dict[str, str]:
    """``NAME=VALUE`` texts; a bare NAME takes its value from ``environ``, and is left out when it has none."""
    pairs: dict[str, str] = {}
    for text in _texts(values, field):
        name, equals, value = text.partition("=")
        if not name or (not equals and environ is None):
            raise click.UsageError(f"--{field.replace('_', '-')} {text!r}: expected NAME=VALUE")
        if equals:
            pairs[name] = value
        elif environ is not None and name in environ:
            pairs[name] = environ[name]
    return pairs


def _platforms(values: Values) -> tuple[Platform, ...]:
    texts = [name.strip() for text in _texts(values, "custom_platform") for name in text.split(",")]
    return tuple(dict.fromkeys(map(_platform, texts or [""])))


def _platform(text: str) -> Platform:
    try:
        return Platform.parse(text or f"linux/{machine.machine()}")
    except ValueError as error:
        raise click.UsageError(f"--custom-platform: {error}") from error


def _rung(text: str) -> str:
    if text not in ("auto", "overlay", "namespaces", "chroot"):
        raise click.UsageError(f"--isolation {text}: expected auto, overlay, namespaces or chroot")
    return "" if text == "auto" else text


def _clamp(values: Values, environ: Mapping[str, str]) -> int | None:
    epoch = _pairs(values, "build_arg", environ).get("SOURCE_DATE_EPOCH", environ.get("SOURCE_DATE_EPOCH", ""))
    if not epoch:
        return 0 if values["reproducible"] else None
    if not epoch.isdecimal():
        raise click.UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}: expected seconds since 1970")
    return int(epoch)


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(caches) / "crossdock" / "build"


def _references(values: Values, field: str) -> tuple[Reference, ...]:
    try:
        return tuple(Reference.parse(text) for text in _texts(values, field))
    except InvalidReference as error:
        raise click.UsageError(f"--{field.replace('_', '-')}: {error}") from error


def _cache(values: Values) -> CacheOptions:
    repository = _text(values, "cache_repo")
    try:
        reference = Reference.parse(repository) if repository else None
    except InvalidReference as error:
        raise click.UsageError(f"--cache-repo: {error}") from error
    return CacheOptions(enabled=bool(values["cache"]), repository=reference)


def _mirrors(values: Values) -> Mirrors:
    try:
        return parse_mirrors(_texts(values, "registry_mirror"), _texts(values, "registry_map"))
    except ValueError as error:
        raise click.UsageError(f"--registry-mirror, --registry-map: {error}") from error


def _registry(values: Values) -> RegistryOptions:
    return RegistryOptions(
        insecure_push=bool(values["insecure"]),
        insecure_pull=bool(values["insecure_pull"]),
        insecure_hosts=frozenset(_texts(values, "insecure_registry")),
        skip_tls_verify=bool(values["skip_tls_verify"] or values["skip_tls_verify_pull"]),
        skip_tls_verify_hosts=frozenset(_texts(values, "skip_tls_verify_registry")),
        mirrors=_mirrors(values),
    )
