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
    StepSecrets,
)
from builder.progress import Style, progress_for
from cache.command_line import Values, count_of, exit_status, make_command, notes, parse, text_of, texts_of
from cache.errors import CacheError
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.reference import Reference
from cache.registry_flags import registry_options
from cache.units import parse_bytes

_LOG_FORMATS = {"color": Style.AUTO, "text": Style.PLAIN, "json": Style.JSON}


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock build``; returns a failed RUN's own status, 2 for wrong usage, 1 for other errors."""

    def run() -> int:
        values = parse_arguments(arguments)
        return values if isinstance(values, int) else _build(values)

    return exit_status(run)


def parse_arguments(arguments: Sequence[str]) -> Values | int:
    """The values given, or the exit status where the help was asked for. Raises click.ClickException."""
    context = click.Argument(["context_argument"], required=False, metavar="[CONTEXT]")
    command = make_command("build", "Build the image of a Dockerfile and push it.", flags.BUILD, context)
    return parse(command, flags.BUILD, arguments)


def _build(values: Values) -> int:
    style = _style(text_of(values, "progress"), text_of(values, "log_format"))
    from builder.build import run_build  # only a build that starts pays for importing the engine

    with contextlib.closing(progress_for(sys.stderr, os.environ.get("TERM", ""), style)) as progress:
        try:
            options = make_options(values, os.environ)
            for note in (*_become_root(), *notes(values, flags.BUILD)):
                progress(events.Note(note))
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


def _style(progress: str, log_format: str) -> Style:
    if log_format and log_format not in _LOG_FORMATS:
        raise click.UsageError(f"--log-format {log_format}: expected {', '.join(_LOG_FORMATS)}")
    try:
        return Style(progress) if progress else _LOG_FORMATS.get(log_format, Style.AUTO)
    except ValueError as error:
        raise click.UsageError(f"--progress {progress}: expected auto, plain or json") from error


def _become_root() -> list[str]:
    """An ordinary user becomes root of a user namespace, before any thread is started; what they should know."""
    if os.geteuid() == 0:
        return []
    os.environ.setdefault("HOME", str(Path.home()))  # root's own is another
    from builder.sandbox.rootless import become_root

    return become_root()


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
        context_sub_path=text_of(values, "context_sub_path"),
        dockerfile=dockerfile,
        targets=texts_of(values, "target") or ("",),
        single_snapshot=bool(values["single_snapshot"]),
        ignored=cli_outputs.ignored_paths(values),
        check_only=bool(values["check"]),
        dry_run=bool(values["dry_run"]),
        print_plan=bool(values["print_plan"]),
        explain=bool(values["explain"]),
        contexts=cli_sources.named_contexts(texts_of(values, "build_context")),
        secrets=StepSecrets(
            values=cli_sources.secrets(texts_of(values, "secret"), environ),
            agents=cli_sources.agents(texts_of(values, "ssh"), environ),
        ),
        build_args=_pairs(values, "build_arg", environ),
        labels=_pairs(values, "label", None),
        platforms=_platforms(values),
        build_platform=_platform(""),
        clamp_mtime_s=_clamp(values, environ),
        state_dir=Path(text_of(values, "state_dir") or _default_state_dir(environ)).absolute(),
        rung=_rung(text_of(values, "isolation")),
        cache=_cache(values),
        output=cli_outputs.output_options(values, _references(values, "destination"), environ),
        registry=registry_options(values),
        limits=_limits(values),
    )


def _context(values: Values, environ: Mapping[str, str]) -> MainContext:
    bucket = text_of(values, "bucket")
    places = [text_of(values, "context_argument"), text_of(values, "context")]
    places += [bucket if not bucket or "://" in bucket else f"gs://{bucket}"]
    given = [place for place in places if place]
    if len(given) > 1:
        raise click.UsageError("give the context once: as an argument, by --context or by --bucket")
    return cli_sources.main_context(given[0] if given else ".", texts_of(values, "git"), environ)


def _limits(values: Values) -> Limits:
    return Limits(
        unpacked_bytes=_bytes(values, "max_unpacked_bytes"),
        files=count_of(values, "max_files", least=1),
        download_bytes=_bytes(values, "max_download_bytes"),
        step_s=_step_s(text_of(values, "step_timeout")),
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
    text = text_of(values, field)
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.UsageError(f"--{field.replace('_', '-')}: {error}") from error


def _pairs(values: Values, field: str, environ: Mapping[str, str] | None) -> dict[str, str]:
    """``NAME=VALUE`` texts; a bare NAME takes its value from ``environ``, and is left out when it has none."""
    pairs: dict[str, str] = {}
    for text in texts_of(values, field):
        name, equals, value = text.partition("=")
        if not name or (not equals and environ is None):
            raise click.UsageError(f"--{field.replace('_', '-')} {text!r}: expected NAME=VALUE")
        if equals:
            pairs[name] = value
        elif environ is not None and name in environ:
            pairs[name] = environ[name]
    return pairs


def _platforms(values: Values) -> tuple[Platform, ...]:
    texts = [name.strip() for text in texts_of(values, "custom_platform") for name in text.split(",")]
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
        return tuple(Reference.parse(text) for text in texts_of(values, field))
    except InvalidReference as error:
        raise click.UsageError(f"--{field.replace('_', '-')}: {error}") from error


def _cache(values: Values) -> CacheOptions:
    place = text_of(values, "cache_repo")
    in_directory = place.startswith("oci:")
    try:
        reference = Reference.parse(place) if place and not in_directory else None
    except InvalidReference as error:
        raise click.UsageError(f"--cache-repo: {error}") from error
    return CacheOptions(
        enabled=bool(values["cache"]),
        repository=reference,
        directory=Path(place.removeprefix("oci:")).absolute() if in_directory else None,
        save=not values["no_push_cache"],
        runs=bool(values["cache_run_layers"]),
        copies=bool(values["cache_copy_layers"]),
        warmed=Path(text_of(values, "cache_dir")).absolute(),
    )
