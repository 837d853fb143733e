"""Unpacking layers: what lands, what is hidden, and that nothing ever lands outside."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from builder.errors import BuildError
from builder.layer.changes import Entry, Opaque, Whiteout
from builder.layer.rootfs import Tree
from builder.layer.unpack import unpack_archive, unpack_layer
from tests.builder.trees import CAPABILITY, layer_of, listing, make, overlay, unpacked


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = kind, link, 1_500_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_of(members: Iterable[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]], tar_format=tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format, errors="surrogateescape") as tar:
        for item in members:
            info, content = item if isinstance(item, tuple) else (item, b"")
            info.size = len(content) or info.size
            tar.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def unpack(tar: bytes, directory: Path, *, overlay: bool = False, lower: Tree | None = None):
    directory.mkdir(exist_ok=True, parents=True)
    return unpack_layer(io.BytesIO(tar), directory, overlay=overlay, lower=lambda: lower or Tree([]))


DIRECTORY = {"kind": tarfile.DIRTYPE, "mode": 0o755}


@pytest.fixture(params=[False, True], ids=["in place", "overlay"])
def as_overlay(request) -> bool:
    return request.param


def full_tree(root: Path) -> Path:
    make(root, {"etc/passwd": "root", "dir/sub/file": "x" * 5000, "link": "-> etc", "n" * 200 + "/é": "long"})
    (root / os.fsdecode(b"bad\xff")).write_bytes(b"name")
    os.link(root / "etc/passwd", root / "same")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 0))
    os.chown(root / "dir/sub/file", 1000, 1001)
    os.chmod(root / "dir/sub/file", 0o4755)
    os.chown(root / "dir/sub", 3_000_000, 5)
    os.chmod(root / "dir/sub", 0o3770)
    os.lchown(root / "link", 7, 8)
    os.setxattr(root / "dir/sub/file", "security.capability", CAPABILITY)
    for at, seen in enumerate(Tree([root]).walk()):
        os.utime(seen.on_disk, (at * 10**7, at * 10**7), follow_symlinks=False)
    return root


@pytest.mark.parametrize("tar_format", ["pax", "gnu", "ustar-v7"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_unpacks_what_gnu_tar_wrote(tmp_path: Path, as_overlay: bool, compression, tar_format: str):
    source = full_tree(tmp_path / "source")
    if tar_format == "ustar-v7":
        subprocess.run(["rm", "-r", source / ("n" * 200)], check=True)
        os.chown(source / "dir/sub", 6, 5)
        os.utime(source, (5, 5))
        os.utime(source / "dir", (5, 5))
    form = {"pax": "posix", "gnu": "gnu", "ustar-v7": "ustar"}[tar_format]
    xattrs = ["--xattrs", "--xattrs-include=*"] if tar_format == "pax" else []
    if not xattrs:
        os.removexattr(source / "dir/sub/file", "security.capability")
    made = subprocess.run(["tar", f"--format={form}", *xattrs, "-C", source, "-cf", "-", "."], capture_output=True)
    tar = made.stdout
    blob = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "none": bytes}[compression](tar)
    target = tmp_path / "target"
    target.mkdir()
    result = unpack_layer(io.BytesIO(blob), target, overlay=as_overlay)
    assert str(result.diff_id) == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert result.size_bytes == len(tar)
    assert (result.skipped, result.implied) == ((), frozenset())
    assert listing(target) == listing(source)
    assert os.lstat(target).st_mode == os.lstat(source).st_mode


def test_names_and_ids_of_every_format(tmp_path: Path):
    long = "a/" * 60 + "b" * 120
    members = [member("big", uid=10**7, gid=10**7, mtime=2), member(long), member("l", tarfile.SYMTYPE, long)]
    for number, tar_format in enumerate([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]):
        unpack(tar_of(members, tar_format), tmp_path / str(number))
        assert os.lstat(tmp_path / str(number) / "big").st_uid == 10**7
        assert (tmp_path / str(number) / long).is_file()
        assert os.readlink(tmp_path / str(number) / "l") == long


def test_zstd_frames_are_one_stream(tmp_path: Path):
    """As zstd:chunked writes them: many frames, and notes in frames that are to be skipped."""
    tar = tar_of([(member("x"), b"content" * 1000)])
    skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    blob = skipped + zstandard.compress(tar[:700]) + skipped + zstandard.compress(tar[700:]) + skipped
    assert unpack_layer(io.BytesIO(blob), tmp_path, overlay=False).size_bytes == len(tar)
    assert (tmp_path / "x").read_bytes() == b"content" * 1000


def test_gzip_members_and_trailing_zeros_are_one_stream(tmp_path: Path):
    tar = tar_of([(member("x"), b"content" * 1000)])
    blob = gzip.compress(tar[:700]) + gzip.compress(tar[700:]) + bytes(1000)
    assert unpack_layer(io.BytesIO(blob), tmp_path, overlay=False).size_bytes == len(tar)
    assert (tmp_path / "x").read_bytes() == b"content" * 1000


@pytest.mark.parametrize("name", ["BZh", "\x1f", "P*M\x18"])
def test_a_first_name_that_begins_like_a_compressed_stream(tmp_path: Path, name: str):
    unpack(tar_of([member(name)]), tmp_path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "bzip2", "xz", "none"])
@pytest.mark.parametrize("cut", [0, 1, 300, 6000])
def test_a_damaged_archive_is_an_error(tmp_path: Path, compression, cut: int):
    tar = tar_of([(member("x"), os.urandom(20000)), member("y")])
    packers = {"gzip": gzip.compress, "zstd": zstandard.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    blob = bytearray(packers.get(compression, bytes)(tar))
    if cut:
        del blob[-cut - (10240 if compression == "none" else 0) :]
    else:
        blob[:10] = b"0123456789"
    with pytest.raises(BuildError, match=r"the archive (is damaged|ends early)|is not a tar archive"):
        unpack_archive(io.BytesIO(blob), tmp_path)


# Escapes


ESCAPES = {
    "absolute": [member("/outside/x")],
    "dots": [member("../outside/x"), member("a/../../outside/y")],
    "absolute link": [member("a", tarfile.SYMTYPE, "{outside}"), member("a/x")],
    "relative link": [member("a", tarfile.SYMTYPE, "../outside"), member("a/x"), member("a/sub/y")],
    "link to link": [member("a", tarfile.SYMTYPE, "."), member("a/b", tarfile.SYMTYPE, "../outside"), member("b/x")],
    "through a file link": [member("x", tarfile.SYMTYPE, "{outside}/x"), member("x")],
    "directory over link": [member("a", tarfile.SYMTYPE, "{outside}"), member("a", tarfile.DIRTYPE), member("a/x")],
    "link over directory": [
        member("a/b", tarfile.DIRTYPE, mtime=1),
        member("a/b/c", tarfile.DIRTYPE, mtime=1),
        member("a", tarfile.SYMTYPE, "{outside}"),
        member("a/b/x"),
    ],
    "whiteout": [member("a", tarfile.SYMTYPE, "{outside}"), member("a/.wh.victim"), member("../outside/.wh.victim")],
    "opaque": [member("a", tarfile.SYMTYPE, "{outside}"), member("a/.wh..wh..opq")],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_leaves_the_directory(tmp_path: Path, as_overlay: bool, name: str):
    outside = make(tmp_path / "outside", {"victim": "safe", "b/c": "safe"})
    os.utime(outside, (99, 99))
    os.utime(outside / "b", (99, 99))
    members = []
    for info in ESCAPES[name]:
        info = member(info.name, info.type, info.linkname.replace("{outside}", str(outside)), mtime=1)
        members.append(info if info.type != tarfile.REGTYPE else (info, b"evil"))
    before = listing(tmp_path / "outside")
    unpack(tar_of(members), tmp_path / "root", overlay=as_overlay)
    assert listing(tmp_path / "outside") == before
    assert os.lstat(outside).st_mtime == 99
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]


@pytest.mark.parametrize("target", ["../outside/victim", "/outside/victim", "{outside}/victim", "a/victim"])
def test_a_hard_link_cannot_take_a_file_from_outside(tmp_path: Path, as_overlay: bool, target: str):
    outside = make(tmp_path / "outside", {"victim": "safe"})
    members = [
        member("a", tarfile.SYMTYPE, str(outside)),
        member("x", tarfile.LNKTYPE, target.replace("{outside}", str(outside))),
    ]
    with pytest.raises(BuildError, match=r"'x' is a hard link to '.*victim', which is not there"):
        unpack(tar_of(members), tmp_path / "root", overlay=as_overlay)
    assert os.lstat(outside / "victim").st_nlink == 1


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("dir/.wh..")], "names no file"),
        ([member(".wh.")], "names no file"),
        ([member(".wh...")], "names no file"),
        ([member("file"), member("file/x")], "'file' is not a directory"),
        ([member("/", tarfile.REGTYPE)], "replace the root"),
        ([member("a", tarfile.SYMTYPE, "a"), member("a/x")], "cannot unpack 'a/x': [Tt]oo many levels"),
        ([member("x", uid=2**40)], "cannot unpack 'x'"),
        ([member("n" * 300)], "File name too long"),
        ([member("x", b"Z")], r"kind \(b'Z'\)"),
        ([member("x", pax_headers={"path": "x\0y"})], "cannot unpack"),
        ([member("x", pax_headers={"GNU.sparse.major": "1"})], "cannot be unpacked"),
    ],
)
def test_bad_members_are_errors(tmp_path: Path, members: list[tarfile.TarInfo], message: str):
    with pytest.raises(BuildError, match=message):
        unpack(tar_of(members), tmp_path / "root")


# Layers over layers


def test_whiteouts_and_opaque_directories(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"gone": "", "dir/gone": "", "dir/stays": "", "op/old/x": "", "op/kept/x": ""})
    layer = layer_of(
        [
            Whiteout("gone"),
            Whiteout("dir/gone"),
            Entry("op", stat.S_IFDIR | 0o755),
            Entry("op/kept", stat.S_IFDIR | 0o755),
            Entry("op/kept/new", stat.S_IFLNK | 0o777, link="x"),
            Opaque("op"),
            Whiteout("never/was"),
        ]
    )
    assert set(listing(over(base, layer, tmp_path, as_overlay))) == {"dir", "dir/stays", "op", "op/kept", "op/kept/new"}


def over(base: Path, layer: bytes, tmp_path: Path, as_overlay: bool) -> Tree:
    """The tree after ``layer`` on ``base``; as an overlay it is also held against what the kernel shows."""
    if not as_overlay:
        unpack_layer(io.BytesIO(layer), base, overlay=False)
        return Tree([base])
    directories = [unpacked(layer, tmp_path / "layer", lower=[base]), base]
    with overlay(directories, tmp_path / "mount") as (merged, _):
        assert listing(merged) == listing(Tree(directories))
    return Tree(directories)


def test_an_entry_survives_the_whiteout_of_its_own_layer(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"x": "old", "d/old": ""})
    for order in (1, -1):
        members = [(member("x"), b"new"), member("d", **DIRECTORY), member("d/new"), member(".wh.x"), member(".wh.d")]
        layer = gzip.compress(tar_of(members[::order] if order == 1 else [*members[3:], *members[:3]]))
        scratch = tmp_path / f"order{order}"
        copy = scratch / "base"
        scratch.mkdir()
        subprocess.run(["cp", "-a", base, copy], check=True)
        tree = over(copy, layer, scratch, as_overlay)
        assert set(listing(tree)) == {"x", "d", "d/new"}
        assert tree.real_path("x").read_text() == "new"


def test_an_opaque_root_hides_all(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"x": "", "d/old": "", "e/x": ""})
    layer = gzip.compress(tar_of([member("d", **DIRECTORY), member("d/new"), member(".wh..wh..opq")]))
    assert set(listing(over(base, layer, tmp_path, as_overlay))) == {"d", "d/new"}


def test_types_change(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"file": "", "dir/x/y": "", "link": "-> dir", "same/x": ""})
    layer = layer_of(
        [
            Entry("dir", stat.S_IFLNK | 0o777, link="same"),
            Entry("file", stat.S_IFDIR | 0o700),
            Entry("file/x", stat.S_IFIFO | 0o600),
            Entry("link", stat.S_IFDIR | 0o755),
        ]
    )
    found = listing(over(base, layer, tmp_path, as_overlay))
    assert set(found) == {"dir", "file", "file/x", "link", "same", "same/x"}


def test_directories_that_the_layer_does_not_list_stay_as_they_are(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"tmp/x": "", "home/user/x": ""})
    os.chmod(base, 0o751)
    os.chmod(base / "tmp", 0o1777)
    os.chown(base / "home/user", 1000, 1000)
    os.utime(base / "tmp", (5, 5))
    before = listing(base)
    layer = gzip.compress(tar_of([member("tmp/new"), member("home/user/.cache/new")]))
    tree = over(base, layer, tmp_path, as_overlay)
    after = listing(tree)
    assert {path: what[:3] for path, what in after.items() if path in before} == {p: w[:3] for p, w in before.items()}
    assert after["home/user/.cache"][:3] == (stat.S_IFDIR | 0o755, 0, 0)
    assert stat.S_IMODE(tree.lstat("").st_mode) == 0o751


def test_links_of_lower_layers_are_followed(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"usr/lib/old": "", "lib": "-> usr/lib", "dangling": "-> /opt/new"})
    layer = gzip.compress(tar_of([member("lib/x"), member("dangling/y"), member("lib/deep/z")]))
    found = set(listing(over(base, layer, tmp_path, as_overlay)))
    assert found >= {"usr/lib/old", "usr/lib/x", "usr/lib/deep/z", "lib", "dangling", "opt/new/y"}
    assert stat.S_ISLNK(Tree([base]).lstat("lib").st_mode)


def test_a_hard_link_to_a_lower_file_shares_its_content(tmp_path: Path, as_overlay: bool):
    base = make(tmp_path / "base", {"dir/file": "content"})
    os.chown(base / "dir/file", 5, 6)
    layer = gzip.compress(tar_of([member("new/name", tarfile.LNKTYPE, "dir/file")]))
    found = listing(over(base, layer, tmp_path, as_overlay))
    assert found["new/name"] == found["dir/file"]
    assert found["new/name"][1:3] == (5, 6)
    assert found["new/name"][-1] == "dir/file"


def test_what_would_steer_overlayfs_is_left_out(tmp_path: Path):
    records = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.kept": "1", "SCHILY.xattr.trusted.x": "1"}
    members = [member("d", **DIRECTORY, pax_headers=records), member("c", tarfile.CHRTYPE)]
    result = unpack(tar_of(members), tmp_path / "root", overlay=True)
    assert os.listxattr(tmp_path / "root/d") == ["user.kept"]
    assert os.listdir(tmp_path / "root") == ["d"]
    assert result.skipped == ("c: a character device 0:0 would be read as a deleted file",)


def test_an_archive_has_no_whiteouts(tmp_path: Path):
    unpacked = unpack_archive(io.BytesIO(tar_of([member("dir/.wh.x")])), tmp_path)
    assert (tmp_path / "dir/.wh.x").is_file()
    assert unpacked.implied == {"dir"}


def test_a_device_that_is_refused_is_reported(tmp_path: Path):
    (tmp_path / "layer").write_bytes(tar_of([member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), member("x")]))
    (tmp_path / "root").mkdir()
    program = (
        "import sys, builder.layer.unpack as u, pathlib as p;"
        "r = u.unpack_layer(open(sys.argv[1], 'rb'), p.Path(sys.argv[2]), overlay=False); print(r.skipped)"
    )
    command = ["capsh", "--drop=cap_mknod", "--", "-c", 'exec "$@"', "sh", sys.executable, "-c", program]
    ran = subprocess.run([*command, tmp_path / "layer", tmp_path / "root"], capture_output=True, text=True, check=True)
    assert ran.stdout == "('null: device node 1:3: Operation not permitted',)\n"
    assert os.listdir(tmp_path / "root") == ["x"]


def test_modes_do_not_depend_on_the_umask(tmp_path: Path):
    tar = tar_of([member("f", mode=0o666), member("d", tarfile.DIRTYPE, mode=0o777), member("implied/x", mode=0o666)])
    previous = os.umask(0o077)
    try:
        unpack(tar, tmp_path / "root")
    finally:
        os.umask(previous)
    modes = {path: stat.S_IMODE(what[0]) for path, what in listing(tmp_path / "root").items()}
    assert modes == {"d": 0o777, "f": 0o666, "implied": 0o755, "implied/x": 0o666}
