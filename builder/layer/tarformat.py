"""The bytes of tar headers: POSIX ustar, with PAX records only where ustar has no room (POSIX.1-2017, "pax").

Deterministic by leaving out what differs between runs: no user or group names, no access or change times, and
modification times in whole seconds.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, replace

from builder.errors import BuildError
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.links import join

BLOCK_BYTES = 512
WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
XATTR_RECORD = "SCHILY.xattr."
_AUFS_PREFIX = ".wh..wh."

_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MOST_ID = 8**7 - 1
_MOST_SIZE = 8**11 - 1
_FORMAT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_CHECKSUM_AT = 148
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class UnfitForLayer(ValueError):
    """An entry that a layer cannot hold; the message names it."""


@dataclass(frozen=True, slots=True)
class _Header:
    """The fields of one header, with ids, sizes and times of any size."""

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    mtime_s: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)

    def too_big(self) -> dict[bytes, int]:
        """The numbers that ustar has no room for, under their PAX names."""
        numbers = {
            b"uid": (self.uid, _MOST_ID),
            b"gid": (self.gid, _MOST_ID),
            b"size": (self.size_bytes, _MOST_SIZE),
            b"mtime": (self.mtime_s, _MOST_SIZE),
        }
        return {tag: value for tag, (value, most) in numbers.items() if not 0 <= value <= most}


def header(change: Change, clamp_mtime_s: int | None = None) -> bytes:
    """The header block of a change, after its PAX records if it needs any. Raises UnfitForLayer."""
    match change:
        case Entry():
            mtime_s = change.mtime_ns // 1_000_000_000
            if clamp_mtime_s is not None:
                mtime_s = min(mtime_s, clamp_mtime_s)
            return _with_records(_entry_header(change, mtime_s), _xattr_records(change))
        case Whiteout(path=path):
            parent, _, name = path.rpartition("/")
            return _with_records(_Header(_encode(f"{parent}/{WHITEOUT_PREFIX}{name}".lstrip("/")), b"0"), {})
        case Opaque(path=path):
            return _with_records(_Header(_encode(f"{path}/{OPAQUE_NAME}".lstrip("/")), b"0"), {})


def change_of(entry: Entry) -> Change | None:
    """What a member of a layer's tar means; None for aufs' own notes, which old layers hold. Raises BuildError."""
    parent, _, name = entry.path.rpartition("/")
    if not name.startswith(WHITEOUT_PREFIX):
        return member_of(entry)
    if name == OPAQUE_NAME:
        return Opaque(parent)
    if name.startswith(_AUFS_PREFIX):
        return None
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in {"", ".", ".."}:
        raise BuildError(f"{entry.path!r} in the layer is not a whiteout: it names no file")
    return Whiteout(join(parent, hidden))


def member_of(entry: Entry) -> Entry:
    """The member itself. Raises BuildError for one that would replace the root by a file."""
    if not entry.path and not entry.is_directory:
        raise BuildError("the archive would replace the root by a file")
    return entry


def padding(size_bytes: int) -> bytes:
    """The zeros that fill the last block of a file's content."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _entry_header(entry: Entry, mtime_s: int) -> _Header:
    if entry.path.rpartition("/")[2].startswith(WHITEOUT_PREFIX):
        raise UnfitForLayer(f"{entry.path!r} cannot be in a layer: a name that begins with .wh. means a deleted file")
    kind = b"1" if entry.hardlink else _TYPES.get(stat.S_IFMT(entry.mode))
    if kind is None:
        raise UnfitForLayer(
            f"{entry.path!r} cannot be in a layer: files of mode {entry.mode:#o} have no place in a tar"
        )
    name = _encode(entry.path or ".")
    return _Header(
        name=name + b"/" if entry.is_directory else name,
        kind=kind,
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size_bytes=entry.size_bytes if entry.is_file else 0,
        mtime_s=mtime_s,
        link=_encode(entry.link),
        device=entry.device,
    )


def _xattr_records(entry: Entry) -> dict[bytes, bytes]:
    if entry.hardlink:
        return {}
    return {_encode(XATTR_RECORD + name): entry.xattrs[name] for name in sorted(entry.xattrs)}


def _with_records(fields: _Header, records: dict[bytes, bytes]) -> bytes:
    prefix, name = b"", fields.name
    if len(name) > _NAME_BYTES and name.isascii():
        prefix, name = _split(name)
    if len(name) > _NAME_BYTES or not name.isascii():
        records[b"path"] = fields.name
        prefix, name = b"", name[:_NAME_BYTES]
    if len(fields.link) > _NAME_BYTES or not fields.link.isascii():
        records[b"linkpath"] = fields.link
    for tag, value in fields.too_big().items():
        records[tag] = b"%d" % value
    block = _block(replace(fields, name=name, link=fields.link[:_NAME_BYTES]), prefix)
    return _record_blocks(records) + block if records else block


def _split(name: bytes) -> tuple[bytes, bytes]:
    """A long name as ustar's prefix and name, cut at a slash; without a prefix when no cut fits."""
    cut = name.rfind(b"/", 0, _PREFIX_BYTES + 1)
    while cut > 0 and len(name) - cut - 1 <= _NAME_BYTES:
        if cut < len(name) - 1:
            return name[:cut], name[cut + 1 :]
        cut = name.rfind(b"/", 0, cut)
    return b"", name


def _record_blocks(records: dict[bytes, bytes]) -> bytes:
    body = b"".join(_record(tag, records[tag]) for tag in sorted(records))
    start = _block(_Header(b"PaxHeaders/record", b"x", mode=0o644, size_bytes=len(body)), b"")
    return start + body + padding(len(body))


def _record(tag: bytes, value: bytes) -> bytes:
    """``length tag=value`` and a newline, where the length counts its own digits."""
    rest = len(tag) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, tag, value)


def _block(fields: _Header, prefix: bytes) -> bytes:
    block = _FORMAT.pack(
        fields.name,
        b"%07o" % fields.mode,
        _octal(fields.uid, 7),
        _octal(fields.gid, 7),
        _octal(fields.size_bytes, 11),
        _octal(fields.mtime_s, 11),
        b" " * 8,
        fields.kind,
        fields.link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % fields.device[0],
        b"%07o" % fields.device[1],
        prefix,
        b"",
    )
    return block[:_CHECKSUM_AT] + b"%06o\0 " % sum(block) + block[_CHECKSUM_AT + 8 :]


def _octal(value: int, digits: int) -> bytes:
    """The number in octal; 0 when it has no room, and a PAX record says it."""
    return b"%0*o" % (digits, value if 0 <= value < 8**digits else 0)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
