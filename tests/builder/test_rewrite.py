"""Several layers as one: over the same base it shows the same files."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builder.contexts.ignore import IgnoreRules
from builder.errors import BuildError
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.entries import read_changes
from builder.layer.rewrite import layer_without, merge_layers, write_merged
from builder.layer.rootfs import Tree
from builder.layer.snapshot import fingerprint, walk_changes
from builder.outputs.exports import LayerFormat
from tests.builder.commands import START, check_layer, copy, operation, perform
from tests.builder.trees import layer_of, listing, make

FILE, FOLDER = 0o100644, 0o040755


def squash(tmp_path: Path, layers: Sequence[bytes], lower: Sequence[bytes] = ()) -> bytes | None:
    """The layers, lowest first, as one in gzip over others; None where nothing is left."""

    def blobs(data: Sequence[bytes], kind: str) -> list[Path]:
        for number, layer in enumerate(data):
            (tmp_path / f"{kind}{number}").write_bytes(layer)
        return [tmp_path / f"{kind}{number}" for number in range(len(data))]

    above = blobs(layers, "above")
    merged = merge_layers(above)
    below = merge_layers(blobs(lower, "below") if merged.asks_for_lower() else [])
    merge = merged.over(below)
    if merge.is_empty:
        return None
    out = io.BytesIO()
    write_merged(merge, above, out, LayerFormat())
    return out.getvalue()


def names(layer: bytes | None) -> list[str]:
    if layer is None:
        return []
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return archive.getnames()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@example(commands=[[("remove", "a", None)], [("mkdir", "a", None)]])
@example(commands=[[("link", "b/b", "a/a/a")], [("remove", "a", None)], [("write", "a", "x")]])
@example(commands=[[("remove", "a/a", None)], [("remove", "a", None), ("symlink", "a", "b")]])
@given(commands=st.lists(st.lists(operation, min_size=1, max_size=6), min_size=1, max_size=5))
def test_one_layer_brings_back_what_several_did(commands):
    with tempfile.TemporaryDirectory() as scratch:
        tmp_path = Path(scratch)
        base = make(tmp_path / "base", START)
        lowest = layer_of(read_changes(Tree([base]).walk()))
        root = copy(base, tmp_path / "root")
        layers = []
        for command in commands:
            before = fingerprint(root)
            perform(root, command)
            changes = walk_changes(root, before)
            layers += [layer_of(changes)] if changes else []
        whole = squash(tmp_path, layers, [lowest])
        check_layer(base, whole or layer_of([]), listing(root), tmp_path)


def entries(*changes: Change) -> bytes:
    return layer_of(changes)


def test_what_a_later_layer_removes_leaves_no_trace_where_it_was_not_below(tmp_path):
    first = entries(Entry("d", FOLDER), Entry("d/x", FILE), Entry("d/y", FILE))
    assert names(squash(tmp_path, [first, entries(Whiteout("d/x"))], [])) == ["d", "d/y"]
    assert squash(tmp_path, [first, entries(Whiteout("d"))], []) is None
    assert names(squash(tmp_path, [first, entries(Whiteout("d"))], [first])) == [".wh.d"]


def test_a_directory_that_was_removed_and_made_again_hides_name_by_name(tmp_path):
    below = entries(Entry("d", FOLDER), Entry("d/a", FILE), Entry("d/s", FOLDER), Entry("d/s/b", FILE))
    layers = [entries(Whiteout("d")), entries(Entry("d", FOLDER), Entry("d/s", FOLDER), Entry("d/s/c", FILE))]
    assert names(squash(tmp_path, layers, [below])) == ["d", "d/.wh.a", "d/s", "d/s/.wh.b", "d/s/c"]
    layers = [entries(Entry("d", FOLDER), Opaque("d")), entries(Entry("d", FOLDER), Entry("d/a", FILE))]
    assert names(squash(tmp_path, layers, [below])) == ["d", "d/.wh.s", "d/a"]


def test_names_below_are_found_through_links(tmp_path):
    """As in images where a layer has files in lib/, and a lower one has made it a link to usr/lib."""
    below = entries(Entry("usr/lib", FOLDER), Entry("lib", 0o120777, link="usr/lib"), Entry("lib/x", FILE))
    assert names(squash(tmp_path, [entries(Whiteout("usr/lib/x"))], [below])) == ["usr/lib/.wh.x"]


def test_a_name_of_a_file_outlives_the_first(tmp_path):
    content = tmp_path / "content"
    content.write_text("text")
    file = Entry("a", FILE, size_bytes=4, content=os.fspath(content))
    first = entries(file, Entry("b", FILE, hardlink=True, link="a"), Entry("c", FILE, hardlink=True, link="a"))
    squashed = squash(tmp_path, [first, entries(Whiteout("a"))])
    assert squashed is not None
    with tarfile.open(fileobj=io.BytesIO(squashed)) as archive:
        found = {member.name: (member.linkname, member.size) for member in archive}
        text = archive.extractfile("c")
        assert text is not None
        assert text.read() == b"text"
    assert found == {"b": ("", 4), "c": ("b", 0)}


def test_a_layer_without_some_paths(tmp_path):
    content = tmp_path / "content"
    content.write_text("text")
    file = Entry("cache/a", FILE, size_bytes=4, content=os.fspath(content))
    linked = Entry("x/b", FILE, hardlink=True, link="cache/a")
    layer = entries(Entry("cache", FOLDER), file, Whiteout("cache/c"), Entry("x", FOLDER), linked, Whiteout("gone"))
    blob = tmp_path / "layer"
    blob.write_bytes(layer)
    assert layer_without(blob, IgnoreRules.parse("/other").excludes) is None
    merge = layer_without(blob, IgnoreRules.parse("/ca*").excludes)
    assert merge is not None
    out = io.BytesIO()
    write_merged(merge, [blob], out, LayerFormat())
    assert names(out.getvalue()) == ["x", ".wh.gone", "x/b"]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        text = archive.extractfile("x/b")
        assert text is not None
        assert text.read() == b"text"


def test_a_link_to_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(BuildError, match="'b' is a hard link to 'a', which is not in its layer"):
        squash(tmp_path, [entries(Entry("b", FILE, hardlink=True, link="a"))])
