"""``crossdock push``: an image in a file → registries."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import click

from builder.errors import BuildError
from builder.layer.origins import BuildLayers
from builder.options import PushOptions
from builder.outputs import digest_files
from builder.outputs.push import Destination, check_permission, push_images
from builder.progress import PlainProgress
from builder.stored_images import StoredImages, read_stored
from cache.disk.filesystem import FilesystemStore
from cache.errors import CacheError
from cache.oci.credentials import DockerConfig
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.reference import Reference
from cache.oci.registries import EVERY_HOST, Registries
from cache.oci.transport import Transport

INTERRUPTED = 130
Values = Mapping[str, object]

_COMMAND = click.Command(
    "push",
    callback=lambda **values: values,
    help="Push the image in a docker-save archive or an OCI layout (a directory or a tar).",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Argument(["path"], type=click.Path(exists=True, path_type=Path)),
        click.Option(["-d", "--destination"], multiple=True, required=True, help="Where to push it."),
        click.Option(["--digest-file"], default="", help="Write its digest to this file, or by PUT to this URL."),
        click.Option(["--image-name-with-digest-file"], default="", help="Write NAME@DIGEST lines there."),
        click.Option(["--insecure"], is_flag=True, help="Push over plain HTTP."),
        click.Option(["--insecure-registry"], multiple=True, help="A registry reached over plain HTTP."),
        click.Option(["--skip-tls-verify"], is_flag=True, help="Accept any certificate."),
        click.Option(
            ["--skip-tls-verify-registry"], multiple=True, help="A registry whose certificate is not checked."
        ),
        click.Option(["--skip-push-permission-check"], is_flag=True, help="Do not check first that pushes are taken."),
        click.Option(["--push-retry"], type=click.IntRange(0), default=0, help="Tries of a whole push beyond one."),
        click.Option(["--push-ignore-immutable-tag-errors"], is_flag=True, help="Warn of tags that cannot be moved."),
    ],
)


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock push``; returns 1 when it fails, 2 for wrong usage."""
    try:
        values = _COMMAND.main(list(arguments), prog_name="crossdock push", standalone_mode=False)
        return values if isinstance(values, int) else asyncio.run(_push(values, os.environ))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (BuildError, CacheError, OCIError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


async def _push(values: Values, environ: Mapping[str, str]) -> int:
    names = _names(values)
    with tempfile.TemporaryDirectory(prefix="crossdock-push-") as scratch:
        stored = await asyncio.to_thread(read_stored, Path(str(values["path"])), Path(scratch))
        unverified = _hosts(values, "skip_tls_verify", "skip_tls_verify_registry")
        credentials = DockerConfig.load(environ, Path(environ.get("HOME") or Path.home()))
        async with Transport(skip_tls_verify=unverified) as transport:
            registries = Registries(transport, credentials, _hosts(values, "insecure", "insecure_registry"))
            destinations = [Destination(name, registries.client(name.host, name.repository)) for name in names]
            await _deliver(stored, destinations, values, Path(scratch))
    return 0


async def _deliver(stored: StoredImages, destinations: Sequence[Destination], values: Values, scratch: Path) -> None:
    if not values["skip_push_permission_check"]:
        await asyncio.gather(*map(check_permission, destinations))
    options = PushOptions(
        retries=int(str(values["push_retry"])), ignore_immutable=bool(values["push_ignore_immutable_tag_errors"])
    )
    layers = BuildLayers(FilesystemStore(scratch / "store"))
    for layer, piece in stored.layers:
        layers.add(layer, piece)
    progress = PlainProgress(sys.stderr)
    for destination in destinations:
        for event in await push_images(stored.images, destination, layers, options):
            progress(event)
    digest = stored.images.root.digest
    lines = "".join(f"{destination.reference.name}@{digest}\n" for destination in destinations)
    for field, text in (("digest_file", str(digest)), ("image_name_with_digest_file", lines)):
        if place := str(values[field]):
            await digest_files.write(place, text)


def _names(values: Values) -> list[Reference]:
    texts = values["destination"]
    assert isinstance(texts, tuple)  # an option that may be given several times
    try:
        return [Reference.parse(str(text)) for text in texts]
    except InvalidReference as error:
        raise click.UsageError(f"--destination: {error}") from error


def _hosts(values: Values, everywhere: str, some: str) -> Container[str]:
    named = values[some]
    assert isinstance(named, tuple)  # an option that may be given several times
    return EVERY_HOST if values[everywhere] else frozenset(map(str, named))
