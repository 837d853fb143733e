"""``crossdock warm``: arguments and environment → images fetched before they are needed."""

from __future__ import annotations

import asyncio
import os
import platform as machine
import sys
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import click

from cache.command_line import Values, make_command, notes, parse, text_of, texts_of
from cache.dockerfile_images import images_of
from cache.errors import CacheError
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.peers import open_peers
from cache.oci.redirect import parse_url
from cache.oci.reference import Reference
from cache.oci.registries import EVERY_HOST, ProxyRegistries, base_url
from cache.oci.transport import Transport, failure, read_limited
from cache.priority import PRIORITY_HEADER, WARM_PRIORITY
from cache.registry_flags import registry_options
from cache.store import Store
from cache.stores import open_store
from cache.warm import ProxyTarget, StoreTarget, Target, Warmed, warm
from cache.warm_flags import FLAGS

INTERRUPTED = 130
DOCKERFILE_BYTES = 1 << 20
USUAL_DIRECTORY = Path("/cache")
"""Kaniko's."""
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
    references = await _references(values, environ)
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
    proxy, url = text_of(values, "proxy"), _store_url(values)
    options = registry_options(values)
    options = replace(options, insecure_pull=options.insecure_pull or options.insecure_push)
    headers = {PRIORITY_HEADER: WARM_PRIORITY} if proxy else {}
    async with open_peers(options, environ, headers) as peers:
        if proxy:
            insecure = EVERY_HOST if options.insecure_pull else options.insecure_hosts
            address = _proxy_url(proxy, insecure, options.tls_hosts)
            yield ProxyTarget(ProxyRegistries(peers.transport, peers.credentials, address))
            return
        store = _open_store(url, environ)
        try:
            await store.check()
            yield StoreTarget(store, peers.pull)
        finally:
            await store.close()


def _store_url(values: Values) -> str:
    """The store to warm, "" for none: then it is a proxy. Raises click.UsageError."""
    proxy, url, directory = (text_of(values, field) for field in ("proxy", "store", "cache_dir"))
    if not (proxy or url or directory) and USUAL_DIRECTORY.is_dir():
        directory = str(USUAL_DIRECTORY)
    if [bool(proxy), bool(url), bool(directory)].count(True) != 1:
        raise click.UsageError("say what to warm: either --proxy or --store or --cache-dir")
    return url or (Path(directory).absolute().as_uri() if directory else "")


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


async def _references(values: Values, environ: Mapping[str, str]) -> list[Reference]:
    """The images named and those of the Dockerfiles, each once. Raises click.UsageError."""
    names = [*texts_of(values, "images"), *texts_of(values, "image")]
    build_args = dict(_build_arg(text, environ) for text in texts_of(values, "build_arg"))
    try:
        for path in texts_of(values, "dockerfile"):
            names += images_of(await _dockerfile(path), build_args)
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


async def _dockerfile(place: str) -> str:
    """The text of a Dockerfile, from a file or a URL. Raises OSError, ValueError or RegistryError."""
    if not place.startswith(("http://", "https://")):
        return await asyncio.to_thread(Path(place).read_text, "utf-8")
    async with Transport() as transport, transport.request("GET", place) as response:
        if response.status != HTTPStatus.OK:
            raise await failure("GET", str(parse_url(place).with_query(None)), response)
        return (await read_limited(response, DOCKERFILE_BYTES, "the Dockerfile")).decode()


def _platforms(values: Values) -> tuple[Platform, ...]:
    try:
        return tuple(map(Platform.parse, texts_of(values, "platform") or (f"linux/{machine.machine()}",)))
    except ValueError as error:
        raise click.UsageError(f"--platform: {error}") from error
