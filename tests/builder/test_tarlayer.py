"""Layers as other programs read them: GNU tar and Python's tarfile, and the bytes of single headers."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from builder.errors import BuildError
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.decompress import DecompressingReader
from builder.layer.entries import read_changes
from builder.layer.rootfs import Tree
from builder.layer.tarformat import header
from builder.layer.tarlayer import write_layer
from builder.layer.tarread import read_entries
from tests.builder.trees import CAPABILITY, listing, make

LONG = "d" * 90 + "/" + "e" * 60 + "/" + "f" * 90
LONGER = "/".join(["g" * 200] * 3)


def changes_of(root: Path) -> list[Change]:
    return read_changes(Tree([root]).walk())


def tarfile_member(block: bytes) -> tarfile.TarInfo:
    """The member that Python's tarfile finds in a header block."""
    with tarfile.open(fileobj=io.BytesIO(block)) as tar:
        member = tar.next()
        assert member is not None
        return member


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything."""
    root = make(
        tmp_path / "tree",
        {
            "plain": "text",
            "empty": "",
            "big": os.urandom(3 << 20),
            LONG: "long",
            LONGER: "longer",
            "name é": "utf-8",
            os.fsdecode(b"name \xff\xfe"): "not utf-8",
            "link": "-> ../somewhere",
            "long-link": "-> " + "h" * 150,
            "dir/sub": None,
        },
    )
    os.link(root / "plain", root / "second")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(root / "plain", 3_000_000, 70_000)
    os.lchown(root / "link", 12, 34)
    os.chmod(root / "big", 0o6751)
    os.chmod(root / "dir", 0o1777)
    os.setxattr(root / "big", "security.capability", CAPABILITY)
    os.setxattr(root / "empty", "user.note", b"a\0b=\n\xff")
    for seen in Tree([root]).walk():
        os.utime(seen.on_disk, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    os.utime(root / "empty", (-5, -5))
    return root


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_gnu_tar_extracts_what_was_written(tree: Path, tmp_path: Path, compression):
    with (tmp_path / "layer").open("wb") as out:
        written = write_layer(changes_of(tree), out, compression=compression)
    blob = (tmp_path / "layer").read_bytes()
    assert str(written.digest) == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert written.size_bytes == len(blob)
    plain = subprocess.run(
        {"gzip": ["zcat"], "zstd": ["true"], "none": ["cat"]}[compression], input=blob, check=True, capture_output=True
    ).stdout
    if compression == "zstd":
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    assert str(written.diff_id) == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert written.tar_bytes == len(plain)
    (tmp_path / "out").mkdir()
    extract = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", tmp_path / "out"]
    subprocess.run(extract, input=plain, check=True)
    assert listing(tmp_path / "out") == listing(tree)


def test_tarfile_reads_what_was_written(tree: Path):
    out = io.BytesIO()
    write_layer(changes_of(tree), out)
    out.seek(0)
    with tarfile.open(fileobj=out, errors="surrogateescape") as tar:
        members = {member.name: member for member in tar}
        names = list(members)
        assert tar.extractfile("big").read() == (tree / "big").read_bytes()
    assert names == [seen.path for seen in Tree([tree]).walk()]
    assert members["second"].linkname == "plain"
    assert (members["plain"].uid, members["plain"].gid) == (3_000_000, 70_000)
    assert all(member.uname == member.gname == "" for member in members.values())
    assert members[LONG].pax_headers == {}
    assert members["plain"].pax_headers == {"uid": "3000000"}


def test_the_same_changes_give_the_same_bytes(tree: Path, tmp_path: Path):
    blobs = []
    for root in (tree, tmp_path / "copy"):
        if root != tree:
            subprocess.run(["cp", "-a", tree, root], check=True)
        out = io.BytesIO()
        write_layer(changes_of(root), out)
        blobs.append(out.getvalue())
    assert blobs[0] == blobs[1]


def test_whiteouts_are_empty_files():
    out = io.BytesIO()
    write_layer([Whiteout("a/gone"), Whiteout("top"), Opaque("dir"), Opaque("")], out, compression="none")
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = [(member.name, member.size, member.mode, member.mtime, member.type) for member in tar]
    names = ["a/.wh.gone", ".wh.top", "dir/.wh..wh..opq", ".wh..wh..opq"]
    assert found == [(name, 0, 0, 0, tarfile.REGTYPE) for name in names]


def test_no_changes_give_an_empty_tar():
    out = io.BytesIO()
    written = write_layer([], out, compression="none")
    assert out.getvalue() == bytes(10240)
    assert written.tar_bytes == 10240


def test_times_are_clamped_to_whole_seconds():
    entries = [Entry(name, stat.S_IFDIR | 0o755, mtime_ns=ns) for name, ns in (("a", 1_999_999_999), ("b", 5 * 10**9))]
    out = io.BytesIO()
    write_layer(entries, out, compression="none", clamp_mtime_s=3)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert [member.mtime for member in tar] == [1, 3]


@pytest.mark.parametrize("size_bytes", [8**11 - 1, 8**11, 10**13])
def test_sizes_beyond_eight_gigabytes(size_bytes: int):
    block = header(Entry("huge", stat.S_IFREG | 0o644, size_bytes=size_bytes, content="/nowhere"))
    assert len(block) == (512 if size_bytes < 8**11 else 1536)
    stream = DecompressingReader(io.BytesIO(block))
    entry, _ = next(iter(read_entries(stream)))
    assert entry.size_bytes == size_bytes
    assert tarfile_member(block).size == size_bytes


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 255, 256, 257, 1000])
@pytest.mark.parametrize("part", [10, 99, 100, 101])
def test_names_of_every_length(length: int, part: int):
    name = "/".join("n" * part for _ in range(length))[:length].rstrip("/")
    for mode in (stat.S_IFREG, stat.S_IFDIR):
        block = header(Entry(name, mode | 0o755))
        assert tarfile_member(block).name == name
        entry, _ = next(iter(read_entries(DecompressingReader(io.BytesIO(block)))))
        assert entry.path == name


@pytest.mark.parametrize(("actual", "said"), [(10, 20), (20, 10), (1 << 20, (1 << 20) + 1), ((1 << 20) + 1, 1 << 20)])
def test_a_file_that_changes_is_an_error(tmp_path: Path, actual: int, said: int):
    (tmp_path / "file").write_bytes(bytes(actual))
    entry = Entry("dir/file", stat.S_IFREG | 0o644, size_bytes=said, content=str(tmp_path / "file"))
    with pytest.raises(BuildError, match=f"'dir/file' changed while it was read.*expected {said} bytes"):
        write_layer([entry], io.BytesIO())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("dir/.wh.x", stat.S_IFREG), "'dir/.wh.x' cannot be in a layer"),
        (Entry("socket", stat.S_IFSOCK), "'socket' cannot be in a layer"),
        (Entry("gone", stat.S_IFREG, content="/nowhere"), "cannot read 'gone' for its layer: No such file"),
    ],
)
def test_what_no_layer_can_hold(entry: Entry, message: str):
    with pytest.raises(BuildError, match=message):
        write_layer([entry], io.BytesIO())


def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(512 << 20)
    entry = Entry("sparse", stat.S_IFREG | 0o644, size_bytes=512 << 20, content=str(tmp_path / "sparse"))
    tracemalloc.start()
    try:
        with (tmp_path / "layer").open("wb") as out:
            written = write_layer([entry], out)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written.tar_bytes > 512 << 20
    assert peak_bytes < 16 << 20
