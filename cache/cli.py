"""``crossdock warm``: arguments and environment → images fetched before they are needed."""

from __future__ import annotations

import asyncio
import os
import platform as machine
import sys
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import click

from cache.command_line import Values, make_command, notes, parse, texts_of
from cache.dockerfile_images import images_of
from cache.errors import CacheError
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.peers import open_peers
from cache.oci.reference import Reference
from cache.oci.registries import EVERY_HOST, ProxyRegistries, base_url
from cache.priority import PRIORITY_HEADER, WARM_PRIORITY
from cache.registry_flags import registry_options
from cache.store import Store
from cache.stores import open_store
from cache.warm import ProxyTarget, StoreTarget, Target, Warmed, warm
from cache.warm_flags import FLAGS

INTERRUPTED = 130


SUMMARY = "Fetch images into a proxy or a store before they are needed."


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock warm``; returns 0 when every image was warmed, 1 when one was not, 2 for wrong usage."""
    images = click.Argument(["images"], nargs=-1, metavar="[IMAGE]...")
    try:
        values = parse(make_command("warm", SUMMARY, FLAGS, images), FLAGS, arguments)
        return values if isinstance(values, int) else asyncio.run(_warm_all(values, os.environ))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (CacheError, OCIError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


async def _warm_all(values: Values, environ: Mapping[str, str]) -> int:
    """Tries every image, says what each cost, and returns the exit status."""
    for note in notes(values, FLAGS):
        print(note, file=sys.stderr)
    references = _references(values, environ)
    platforms = _platforms(values)
    failed = 0
    async with _open_target(values, environ) as target:
        for reference in references:
            try:
                print(f"warmed {reference}: {_told(await warm(reference, target, platforms))}", flush=True)
            except (CacheError, OCIError) as error:
                failed += 1
                print(f"error: {reference}: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"{failed} of {len(references)} images could not be warmed", file=sys.stderr)
    return 1 if failed else 0


def _told(warmed: Warmed) -> str:
    megabytes = warmed.fetched_bytes / 1e6
    return f"{warmed.blobs} blobs, {warmed.held_blobs} held already, {megabytes:.1f} MB in {warmed.seconds:.1f}s"


@asynccontextmanager
async def _open_target(values: Values, environ: Mapping[str, str]) -> AsyncIterator[Target]:
    proxy, url = values["proxy"], values["store"]
    if bool(proxy) == bool(url):
        raise click.UsageError("say what to warm: either --proxy or --store")
    options = registry_options(values)
    options = replace(options, insecure_pull=options.insecure_pull or options.insecure_push)
    headers = {PRIORITY_HEADER: WARM_PRIORITY} if proxy else {}
    async with open_peers(options, environ, headers) as peers:
        if proxy:
            insecure = EVERY_HOST if options.insecure_pull else options.insecure_hosts
            address = _proxy_url(str(proxy), insecure, options.tls_hosts)
            yield ProxyTarget(ProxyRegistries(peers.transport, peers.credentials, address))
            return
        store = _open_store(str(url), environ)
        try:
            await store.check()
            yield StoreTarget(store, peers.pull)
        finally:
            await store.close()


def _open_store(url: str, environ: Mapping[str, str]) -> Store:
    try:
        return open_store(url, environ)
    except ValueError as error:
        raise click.UsageError(f"--store: {error}") from error


def _proxy_url(text: str, insecure: Container[str], tls: Container[str]) -> str:
    url = text.rstrip("/") if "://" in text else base_url(text, insecure, tls)
    if not url.startswith(("http://", "https://")) or "@" in url or url.count("/") != 2:
        raise click.UsageError(
            "--proxy: expected HOST:PORT or http://HOST:PORT, without credentials and without a path"
        )
    return url


def _build_arg(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in environ:
        raise click.UsageError(f"--build-arg {name}: expected NAME=VALUE, or the name of an environment variable")
    return name, value if equals else environ[name]


def _references(values: Values, environ: Mapping[str, str]) -> list[Reference]:
    """The images named and those of the Dockerfiles, each once. Raises click.UsageError."""
    names = [*texts_of(values, "images"), *texts_of(values, "image")]
    build_args = dict(_build_arg(text, environ) for text in texts_of(values, "build_arg"))
    try:
        for path in texts_of(values, "dockerfile"):
            names += images_of(Path(path).read_text("utf-8"), build_args)
        references = [Reference.parse(name) for name in dict.fromkeys(names)]
    except InvalidReference as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"--dockerfile: {error}") from error
    if not references:
        raise click.UsageError("name an image or a --dockerfile")
    return references


def _platforms(values: Values) -> tuple[Platform, ...]:
    try:
        return tuple(map(Platform.parse, texts_of(values, "platform") or (f"linux/{machine.machine()}",)))
    except ValueError as error:
        raise click.UsageError(f"--platform: {error}") from error
