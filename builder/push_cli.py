"""``crossdock push``: an image in a file → registries."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from builder import flags
from builder.errors import BuildError
from builder.layer.origins import BuildLayers
from builder.options import PushOptions
from builder.outputs import digest_files
from builder.outputs.push import Destination, check_permission, push_images
from builder.progress import PlainProgress
from builder.stored_images import StoredImages, read_stored
from cache.command_line import Values, count_of, exit_status, make_command, notes, parse, text_of, texts_of
from cache.disk.filesystem import FilesystemStore
from cache.errors import CacheError
from cache.oci.errors import InvalidReference, OCIError
from cache.oci.peers import open_peers
from cache.oci.reference import Reference
from cache.registry_flags import registry_options

SUMMARY = "Push the image in a docker-save archive or an OCI layout (a directory or a tar)."


def main(arguments: Sequence[str]) -> int:
    """Runs ``crossdock push``; returns 1 when it fails, 2 for wrong usage."""
    path = click.Argument(["path"], type=click.Path(exists=True))
    command = make_command("push", SUMMARY, flags.PUSH, path)

    def run() -> int:
        values = parse(command, flags.PUSH, arguments)
        return values if isinstance(values, int) else asyncio.run(_push(values, os.environ))

    return exit_status(run, BuildError, CacheError, OCIError)


async def _push(values: Values, environ: Mapping[str, str]) -> int:
    for note in notes(values, flags.PUSH):
        print(note, file=sys.stderr)
    names = _names(values)
    options = PushOptions(
        check_permission=not values["skip_push_permission_check"],
        retries=count_of(values, "push_retry"),
        ignore_immutable=bool(values["push_ignore_immutable_tag_errors"]),
    )
    with tempfile.TemporaryDirectory(prefix="crossdock-push-") as scratch:
        stored = await asyncio.to_thread(read_stored, Path(text_of(values, "path")), Path(scratch))
        async with open_peers(registry_options(values), environ) as peers:
            destinations = [Destination(name, peers.push.client(name.host, name.repository)) for name in names]
            await _deliver(stored, destinations, options, Path(scratch))
    digest = stored.images.root.digest
    lines = "".join(f"{name.name}@{digest}\n" for name in names)
    for field, told in (("digest_file", str(digest)), ("image_name_with_digest_file", lines)):
        if place := text_of(values, field):
            await digest_files.write(place, told)
    return 0


async def _deliver(
    stored: StoredImages, destinations: Sequence[Destination], options: PushOptions, scratch: Path
) -> None:
    if options.check_permission:
        await asyncio.gather(*map(check_permission, destinations))
    layers = BuildLayers(FilesystemStore(scratch / "store"))
    for layer, piece in stored.layers:
        layers.add(layer, piece)
    progress = PlainProgress(sys.stderr)
    for destination in destinations:
        for event in await push_images(stored.images, destination, layers, options):
            progress(event)


def _names(values: Values) -> list[Reference]:
    texts = texts_of(values, "destination")
    if not texts:
        raise click.UsageError("give --destination")
    try:
        return [Reference.parse(text) for text in texts]
    except InvalidReference as error:
        raise click.UsageError(f"--destination: {error}") from error
