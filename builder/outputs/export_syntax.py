"""The text of ``--output`` and ``--annotation`` → values, as buildx spells them (pure)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from builder.outputs.exports import (
    USUAL_IMAGE,
    USUAL_LAYERS,
    Annotation,
    AnnotationPlace,
    Export,
    ExportKind,
    ImageFormat,
    LayerFormat,
)
from cache.oci.descriptor import Platform
from cache.oci.media_types import Compression
from cache.oci.reference import Reference

_COMPRESSIONS: Mapping[str, Compression] = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_ANNOTATION = re.compile(r"annotation(?:-(?P<place>[a-z-]+?))?(?:\[(?P<platform>[^\]]*)\])?\.(?P<key>.+)")
_PLACE = re.compile(r"(?P<place>[a-z-]+)(?:\[(?P<platform>[^\]]*)\])?")
_IMAGE_KEYS = frozenset({"name", "compression", "compression-level", "force-compression", "oci-mediatypes"})
_KEYS: Mapping[str, frozenset[str]] = {
    "image": _IMAGE_KEYS | {"push"},
    "docker": _IMAGE_KEYS | {"dest"},
    "oci": _IMAGE_KEYS | {"dest", "tar"},
    "local": frozenset({"dest", "platform-split"}),
    "tar": frozenset({"dest", "platform-split"}),
}


def parse_export(text: str, common: ImageFormat, annotations: Iterable[Annotation] = ()) -> Export:
    """The export in one ``--output``: ``type=…,key=value,…``, or a directory, or ``-`` for a tar on standard output.

    ``common`` is what holds for fields that are not given. Raises ValueError.
    """
    if "=" not in text:
        return Export(kind="tar") if text == "-" else Export(kind="local", path=_path(text))
    fields = _fields(text)
    if (kind := fields.pop("type", "")) == "registry":
        kind, fields["push"] = "image", "true"
    if kind not in get_args(ExportKind):
        raise ValueError(f"type={kind}: expected local, tar, oci, docker, image or registry")
    notes = tuple(annotation for key in list(fields) if (annotation := _annotation(key, fields)))
    unknown = sorted(set(fields) - _KEYS[kind] - {"target"})
    if unknown or (notes and "name" not in _KEYS[kind]):
        raise ValueError(f"type={kind} has no {unknown[0] if unknown else 'annotations'}")
    return _export(kind, fields, common, (*annotations, *notes))


def _fields(text: str) -> dict[str, str]:
    (row,) = csv.reader([text])
    fields: dict[str, str] = {}
    for item in row:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r}: expected KEY=VALUE")
        fields[key.strip()] = value
    return fields


def _export(kind: str, fields: Mapping[str, str], common: ImageFormat, notes: tuple[Annotation, ...]) -> Export:
    if kind != "image" and "dest" not in fields:
        raise ValueError(f"type={kind} needs dest=PATH, or dest=- for standard output")
    path = None if kind == "image" or fields["dest"] == "-" else _path(fields["dest"])
    packed = _boolean(fields, "tar", default=True)
    if path is None and (kind == "local" or not packed):
        raise ValueError("a directory cannot go to standard output")
    names = tuple(Reference.parse(name.strip()) for name in fields.get("name", "").split(",") if name.strip())
    push = _boolean(fields, "push", default=False)
    if push and not names:
        raise ValueError("what is pushed needs name=IMAGE")
    split = _boolean(fields, "platform-split", default=True) if "platform-split" in fields else None
    return Export(
        kind=kind,  # type: ignore[arg-type]  # checked against the literal's values
        path=path,
        names=names,
        push=push,
        packed=packed,
        split=split,
        target=fields.get("target", ""),
        format=_format(kind, fields, common, notes) if "name" in _KEYS[kind] else USUAL_IMAGE,
    )


def _format(kind: str, fields: Mapping[str, str], common: ImageFormat, notes: tuple[Annotation, ...]) -> ImageFormat:
    layers = common.layers
    if "compression" in fields or "compression-level" in fields:
        layers = parse_layer_format(fields.get("compression", ""), fields.get("compression-level", ""), layers)
    return ImageFormat(
        layers=layers,
        recompress=_boolean(fields, "force-compression", default=common.recompress),
        docker=not _boolean(fields, "oci-mediatypes", default=not common.docker),
        annotations=() if kind == "docker" else notes,
    )


def parse_layer_format(compression: str, level: str, common: LayerFormat | None = None) -> LayerFormat:
    """``gzip``, ``zstd`` or ``uncompressed`` with a level ("" = as in ``common``). Raises ValueError."""
    common = common or USUAL_LAYERS
    if compression and compression not in _COMPRESSIONS:
        raise ValueError(f"compression {compression!r}: expected gzip, zstd or uncompressed")
    kind = _COMPRESSIONS[compression] if compression else common.compression
    if level in ("", "-1"):
        return LayerFormat(kind, common.level if kind == common.compression and not level else None)
    if not level.isdecimal():
        raise ValueError(f"compression level {level!r}: expected a number")
    return LayerFormat(kind, int(level) if kind != "none" else None)


def parse_annotation(text: str) -> tuple[Annotation, ...]:
    """``KEY=VALUE`` for the manifest, or ``PLACE[PLATFORM],…:KEY=VALUE`` with the places named. Raises ValueError."""
    named, equals, value = text.partition("=")
    places, colon, key = named.partition(":")
    if not colon:
        places, key = "manifest", named
    if not equals or not key:
        raise ValueError(f"annotation {text!r}: expected KEY=VALUE or PLACE:KEY=VALUE")
    return tuple(_placed(place.strip(), key, value) for place in places.split(","))


def _placed(text: str, key: str, value: str) -> Annotation:
    match = _PLACE.fullmatch(text)
    return _made(match["place"] if match else text, match["platform"] if match else None, key, value)


def _annotation(field: str, fields: dict[str, str]) -> Annotation | None:
    """The annotation that a field is, which is then no field any more."""
    match = _ANNOTATION.fullmatch(field)
    return _made(match["place"] or "manifest", match["platform"], match["key"], fields.pop(field)) if match else None


def _made(place: str, platform: str | None, key: str, value: str) -> Annotation:
    if place not in get_args(AnnotationPlace):
        raise ValueError(f"annotation on {place!r}: expected {', '.join(get_args(AnnotationPlace))}")
    return Annotation(
        place,  # type: ignore[arg-type]  # checked against the literal's values
        key,
        value,
        Platform.parse(platform) if platform else None,
    )


def _boolean(fields: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = fields.get(key)
    if text is None:
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"{key}={text}: expected true or false")
    return text.lower() in ("true", "1")


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path is empty")
    return Path(text)
