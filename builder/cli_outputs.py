"""What the command line says of where the image goes: every flag ends in an export."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click
from msgspec.structs import replace

from builder.contexts.ignore import IgnoreRules
from builder.errors import ContextError
from builder.options import OutputOptions, PushOptions
from builder.outputs.digest_files import is_url
from builder.outputs.export_syntax import parse_annotation, parse_export, parse_layer_format
from builder.outputs.exports import Annotation, Export, ImageFormat
from cache.command_line import Values, count_of, text_of, texts_of
from cache.oci.errors import OCIError
from cache.oci.reference import Reference

_BUILDS_NOTHING = ("check", "dry_run")


def output_options(values: Values, destinations: tuple[Reference, ...], environ: Mapping[str, str]) -> OutputOptions:
    """The outputs that the flags ask for. Raises click.UsageError."""
    push = not values["no_push"]
    common, notes = _format(values), _annotations(values)
    exports = tuple(_placed(_export(text, common, notes), push=push) for text in texts_of(values, "output"))
    exports = (*_named_exports(values, destinations, replace(common, annotations=notes), push=push), *exports)
    if not exports and push and not any(values.get(name) for name in _BUILDS_NOTHING):
        raise click.UsageError("give --destination or --output, or --no-push when the image is to be pushed nowhere")
    return OutputOptions(
        exports=exports,
        names=destinations,
        push=PushOptions(
            check_permission=not values["skip_push_permission_check"],
            retries=count_of(values, "push_retry"),
            ignore_immutable=bool(values["push_ignore_immutable_tag_errors"]),
        ),
        digest_file=_place(values, "digest_file"),
        image_name_with_digest_file=_place(values, "image_name_with_digest_file"),
        image_name_tag_with_digest_file=_place(values, "image_name_tag_with_digest_file"),
        images_file=Path(folder, "images").absolute() if (folder := environ.get("BUILDER_OUTPUT")) else None,
        owners=os.geteuid() == 0,  # an ordinary user could not even remove another's files
    )


def ignored_paths(values: Values) -> tuple[str, ...]:
    """The patterns of ``--ignore-path``. Raises click.UsageError."""
    patterns = texts_of(values, "ignore_path")
    for pattern in patterns:
        try:
            IgnoreRules.parse(pattern)
        except ContextError as error:
            raise click.UsageError(f"--ignore-path {pattern!r}: {error.message}") from error
        if not pattern.startswith("/") or not pattern.strip("/"):
            raise click.UsageError(f"--ignore-path {pattern!r}: expected an absolute path below /")
    return patterns


def _named_exports(
    values: Values, names: tuple[Reference, ...], image_format: ImageFormat, *, push: bool
) -> tuple[Export, ...]:
    """Those of Kaniko's flags."""
    exports = []
    if names:
        exports.append(Export(kind="image", names=names, push=push, format=image_format))
    if path := text_of(values, "tar_path"):
        exports.append(Export(kind="docker", names=names, path=Path(path).absolute(), format=image_format))
    if url := text_of(values, "upload_tar"):
        if not is_url(url):
            raise click.UsageError(f"--upload-tar {url!r}: expected an http or https URL")
        tries = count_of(values, "upload_tar_retry") + 1
        exports.append(Export(kind="docker", names=names, url=url, tries=tries, format=image_format))
    if path := text_of(values, "oci_layout_path"):
        exports.append(Export(kind="oci", names=names, path=Path(path).absolute(), packed=False, format=image_format))
    return tuple(exports)


def _export(text: str, common: ImageFormat, notes: tuple[Annotation, ...]) -> Export:
    try:
        return parse_export(text, common, notes)
    except (OCIError, ValueError) as error:
        raise click.UsageError(f"--output {text!r}: {error}") from error


def _placed(export: Export, *, push: bool) -> Export:
    path = export.path.absolute() if export.path is not None else None
    return replace(export, path=path, push=export.push and push)


def _format(values: Values) -> ImageFormat:
    kind = text_of(values, "image_format")
    if kind not in ("oci", "docker"):
        raise click.UsageError(f"--image-format {kind}: expected oci or docker")
    try:
        layers = parse_layer_format(text_of(values, "compression"), text_of(values, "compression_level"))
        return ImageFormat(layers=layers, recompress=bool(values["force_compression"]), docker=kind == "docker")
    except ValueError as error:
        raise click.UsageError(f"--image-format, --compression: {error}") from error


def _annotations(values: Values) -> tuple[Annotation, ...]:
    try:
        return tuple(note for text in texts_of(values, "annotation") for note in parse_annotation(text))
    except ValueError as error:
        raise click.UsageError(f"--annotation: {error}") from error


def _place(values: Values, field: str) -> str:
    """A file's absolute path, or a URL as it is."""
    text = text_of(values, field)
    return text if not text or is_url(text) else str(Path(text).absolute())
