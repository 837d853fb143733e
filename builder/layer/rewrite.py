"""Layers written anew: several as one, or one without some of its paths.

Their tars are read twice, for what is left of them and for its content; no file is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from builder.errors import BuildError
from builder.layer.changes import Change, Entry
from builder.layer.decompress import DecompressingReader
from builder.layer.merge import Member, Merge, MergedLayers, linked
from builder.layer.tarformat import change_of
from builder.layer.tarlayer import Filled, WrittenLayer, write_layer
from builder.layer.tarread import Content, read_entries
from builder.outputs.exports import LayerFormat


def merge_layers(blobs: Sequence[Path]) -> MergedLayers:
    """What the layers, lowest first, are together. Raises BuildError for what is no layer."""
    merged = MergedLayers()
    for layer, blob in enumerate(blobs):
        for number, entry, _ in _members(blob):
            change = change_of(entry)
            if change is not None:
                merged.add(change, (layer, number))
    return merged


def layer_without(blob: Path, excludes: Callable[[str], bool]) -> Merge | None:
    """What is left of a layer without the paths that ``excludes`` is true for; None where it has none of them."""
    changes: list[Change] = []
    members: dict[str, Member] = {}
    found: dict[Member, Entry] = {}
    names: dict[Member, list[str]] = {}
    excluded = False
    for number, entry, _ in _members(blob):
        change = change_of(entry)
        if isinstance(change, Entry) and (change.is_file or change.hardlink):
            member = members[change.path] = members.get(change.link, (0, number))
            found.setdefault(member, change)
        else:
            member = None
        if change is None or excludes(change.path):
            excluded = True
        elif member is None:
            changes.append(change)
        else:
            names.setdefault(member, []).append(change.path)
    return Merge(changes, {at: linked(found[at], paths) for at, paths in names.items()}) if excluded else None


def write_merged(merge: Merge, blobs: Sequence[Path], out: BinaryIO, wanted: LayerFormat) -> WrittenLayer:
    """Writes what is left of ``blobs`` as one layer.

    Directories come before all files, which come in the order of the layers.
    """
    return write_layer(_items(merge, blobs), out, compression=wanted.compression, level=wanted.level)


def _items(merge: Merge, blobs: Sequence[Path]) -> Iterator[Change | Filled]:
    yield from merge.changes
    for layer, blob in enumerate(blobs):
        for number, _, content in _members(blob):
            if names := merge.files.get((layer, number)):
                yield Filled(names[0], content)
                yield from names[1:]


def _members(blob: Path) -> Iterator[tuple[int, Entry, Content]]:
    try:
        with blob.open("rb") as source:
            reader = DecompressingReader(source)
            for number, (entry, content) in enumerate(read_entries(reader)):
                yield number, entry, content
    except OSError as error:
        raise BuildError(f"cannot read the layer {blob.name}: {error.strerror}") from error
