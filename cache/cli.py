"""``crossdock warm``: arguments and environment → images fetched before they are needed."""

from __future__ import annotations

import asyncio
import os
import platform as machine
import sys
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click

from cache.dockerfile_images import images_of
from cache.errors import CacheError
from cache.oci.credentials import DockerConfig
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.mirrors import Mirrors, parse_mirrors
from cache.oci.reference import Reference
from cache.oci.registries import EVERY_HOST, ProxyRegistries, Registries, base_url
from cache.oci.transport import Transport
from cache.priority import PRIORITY_HEADER, WARM_PRIORITY
from cache.store import Store
from cache.stores import open_store
from cache.warm import ProxyTarget, StoreTarget, Target, Warmed, warm

INTERRUPTED = 130


Values = Mapping[str, object]


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock warm``; returns 0 when every image was warmed, 1 when one was not, 2 for wrong usage."""
    try:
        values = _COMMAND.main(list(arguments), prog_name="crossdock warm", standalone_mode=False)
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


_COMMAND = click.Command(
    "warm",
    callback=lambda **values: values,
    help="Fetch images into a proxy or a store before they are needed.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Argument(["images"], nargs=-1, metavar="[IMAGE]..."),
        click.Option(["-i", "--image"], multiple=True, help="An image, as with IMAGE."),
        click.Option(["-d", "--dockerfile"], multiple=True, help="A Dockerfile whose base images are fetched."),
        click.Option(["--build-arg"], multiple=True, help="NAME=VALUE for the ARGs before the first FROM."),
        click.Option(["--proxy"], help="HOST[:PORT] of the proxy to warm, or its URL."),
        click.Option(["--store"], help="URL of the store to warm: file:///PATH or s3://BUCKET/PREFIX."),
        click.Option(
            ["--platform", "--customPlatform"], multiple=True, help="OS/ARCHITECTURE[/VARIANT]; this machine's if none."
        ),
        click.Option(["--insecure"], is_flag=True, help="Reach every registry over plain HTTP."),
        click.Option(["--skip-tls-verify"], is_flag=True, help="Accept any certificate."),
        click.Option(
            ["--skip-tls-verify-registry"], multiple=True, help="A registry whose certificate is not checked."
        ),
        click.Option(["--insecure-registry"], multiple=True, help="A registry or proxy reached over plain HTTP."),
        click.Option(["--registry-mirror"], multiple=True, help="HOST[/PREFIX] to ask for Docker Hub's images first."),
        click.Option(["--registry-map"], multiple=True, help="HOST=MIRROR[/PREFIX] to ask for HOST's images first."),
    ],
)


async def _warm_all(values: Values, environ: Mapping[str, str]) -> int:
    """Tries every image, says what each cost, and returns the exit status."""
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
    credentials = DockerConfig.load(environ, Path(environ.get("HOME") or Path.home()))
    insecure = _hosts(values, "insecure", "insecure_registry")
    skip_tls_verify = _hosts(values, "skip_tls_verify", "skip_tls_verify_registry")
    headers = {PRIORITY_HEADER: WARM_PRIORITY} if proxy else {}
    async with Transport(skip_tls_verify=skip_tls_verify, headers=headers) as transport:
        if proxy:
            yield ProxyTarget(ProxyRegistries(transport, credentials, _proxy_url(str(proxy), insecure)))
            return
        mirrors = _mirrors(values)
        store = _open_store(str(url), environ)
        try:
            await store.check()
            yield StoreTarget(store, Registries(transport, credentials, insecure, mirrors))
        finally:
            await store.close()


def _mirrors(values: Values) -> Mirrors:
    try:
        return parse_mirrors(_texts(values, "registry_mirror"), _texts(values, "registry_map"))
    except ValueError as error:
        raise click.UsageError(f"--registry-mirror, --registry-map: {error}") from error


def _open_store(url: str, environ: Mapping[str, str]) -> Store:
    try:
        return open_store(url, environ)
    except ValueError as error:
        raise click.UsageError(f"--store: {error}") from error


def _proxy_url(text: str, insecure: Container[str]) -> str:
    url = text.rstrip("/") if "://" in text else base_url(text, insecure)
    if not url.startswith(("http://", "https://")) or "@" in url or url.count("/") != 2:
        raise click.UsageError(
            "--proxy: expected HOST:PORT or http://HOST:PORT, without credentials and without a path"
        )
    return url


def _hosts(values: Values, everyone: str, some: str) -> Container[str]:
    return EVERY_HOST if values[everyone] else frozenset(_texts(values, some))


def _build_arg(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in environ:
        raise click.UsageError(f"--build-arg {name}: expected NAME=VALUE, or the name of an environment variable")
    return name, value if equals else environ[name]


def _texts(values: Values, field: str) -> tuple[str, ...]:
    value = values[field]
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def _references(values: Values, environ: Mapping[str, str]) -> list[Reference]:
    """The images named and those of the Dockerfiles, each once. Raises click.UsageError."""
    names = [*_texts(values, "images"), *_texts(values, "image")]
    build_args = dict(_build_arg(text, environ) for text in _texts(values, "build_arg"))
    try:
        for path in _texts(values, "dockerfile"):
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
        return tuple(map(Platform.parse, _texts(values, "platform") or (f"linux/{machine.machine()}",)))
    except ValueError as error:
        raise click.UsageError(f"--platform: {error}") from error
