"""``crossdock warm``: arguments and environment → images fetched before they are needed."""

from __future__ import annotations

import asyncio
import os
import platform as machine
import sys
import tempfile
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from builder.bases import from_registry
from builder.contexts.context import MAX_DOCKERFILE_BYTES, read_dockerfile
from builder.contexts.download import download
from builder.contexts.remote import UrlSource
from builder.dockerfile.instructions import Dockerfile
from builder.errors import BuildError
from builder.options import DockerfilePlace
from builder.planning.named_images import Image, named_images
from builder.warm_flags import FLAGS
from cache.command_line import Values, exit_status, make_command, notes, parse, text_of, texts_of
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

USUAL_DIRECTORY = Path("/cache")
"""Kaniko's."""
SUMMARY = "Fetch images into a proxy or a store before they are needed."


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock warm``; returns 0 when every image was warmed, 1 when one was not, 2 for wrong usage."""
    images = click.Argument(["images"], nargs=-1, metavar="[IMAGE]...")
    command = make_command("warm", SUMMARY, FLAGS, images)

    def run() -> int:
        values = parse(command, FLAGS, arguments)
        return values if isinstance(values, int) else asyncio.run(_warm_all(values, os.environ))

    return exit_status(run, BuildError, CacheError, OCIError)


async def _warm_all(values: Values, environ: Mapping[str, str]) -> int:
    """Tries every image, says what each cost, and returns the exit status."""
    for note in notes(values, FLAGS):
        print(note, file=sys.stderr)
    wanted = await _wanted(values, environ)
    tried = failed = 0
    known: dict[Image, Sequence[str]] = {}
    async with _open_target(values, environ) as target:
        while images := wanted.needed(known):
            for reference, platforms in images.items():
                known |= {(reference, platform): () for platform in platforms}
                tried += 1
                try:
                    print(f"warmed {reference}: {_told(await warm(reference, target, platforms))}", flush=True)
                    if wanted.dockerfiles:
                        known |= await _triggers(reference, target, platforms)
                except (CacheError, OCIError) as error:
                    failed += 1
                    print(f"error: {reference}: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"{failed} of {tried} images could not be warmed", file=sys.stderr)
    return 1 if failed else 0


async def _triggers(reference: Reference, target: Target, platforms: Sequence[Platform]) -> dict[Image, Sequence[str]]:
    """What a build on the image will be made to do (ONBUILD)."""
    bases = {platform: await from_registry(target.registries, reference, platform) for platform in platforms}
    return {(reference, platform): base.config.config.on_build or () for platform, base in bases.items()}


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


@dataclass(frozen=True)
class _Wanted:
    """The images that were named, and the Dockerfiles whose images are to be warmed."""

    names: Sequence[Reference]
    dockerfiles: Sequence[Dockerfile]
    build_args: Mapping[str, str]
    platforms: Sequence[Platform]
    build_platform: Platform

    def needed(self, known: Mapping[Image, Sequence[str]]) -> dict[Reference, list[Platform]]:
        """What is still to be warmed when it has been for those whose triggers are known. Raises BuildError."""
        images = [(reference, platform) for reference in self.names for platform in self.platforms]
        for dockerfile in self.dockerfiles:
            images += named_images(dockerfile, self.build_args, self.platforms, self.build_platform, known)
        needed: dict[Reference, list[Platform]] = {}
        for reference, platform in dict.fromkeys(images):
            if (reference, platform) not in known:
                needed.setdefault(reference, []).append(platform)
        return needed


async def _wanted(values: Values, environ: Mapping[str, str]) -> _Wanted:
    """What the command line asks for. Raises click.UsageError and BuildError."""
    build_platform = Platform.parse(f"linux/{machine.machine()}")
    build_args = dict(_build_arg(text, environ) for text in texts_of(values, "build_arg"))
    try:
        names = [Reference.parse(name) for name in (*texts_of(values, "images"), *texts_of(values, "image"))]
    except InvalidReference as error:
        raise click.UsageError(str(error)) from error
    dockerfiles = [await _dockerfile(DockerfilePlace(text)) for text in texts_of(values, "dockerfile")]
    wanted = _Wanted(names, dockerfiles, build_args, _platforms(values) or [build_platform], build_platform)
    if not wanted.needed({}):
        raise click.UsageError("name an image, or a --dockerfile that needs one")
    return wanted


async def _dockerfile(place: DockerfilePlace) -> Dockerfile:
    """A Dockerfile of this machine or from the web. Raises BuildError."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(place.text)
        if place.is_url:
            path = Path(scratch, place.name)
            await download(UrlSource(place.text), path, MAX_DOCKERFILE_BYTES)
        return read_dockerfile(path, {})[0]


def _platforms(values: Values) -> list[Platform]:
    try:
        return [Platform.parse(name.strip()) for text in texts_of(values, "platform") for name in text.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--platform: {error}") from error
