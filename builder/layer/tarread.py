"""Reads a tar stream: ustar, PAX and GNU headers (POSIX.1-2017 "pax"; GNU tar manual, "Basic Tar Format").

Our own, because ``tarfile`` takes as long for a header as unpacking a small file does, and keeps every header it saw.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from builder.errors import BuildError
from builder.layer.changes import Entry
from builder.layer.links import clean
from builder.layer.tarformat import BLOCK_BYTES, XATTR_RECORD

MOST_RECORD_BYTES = 8 << 20
"""No name and no list of attributes of one member is longer: the kernel allows 4 KiB and 64 KiB."""

_LONG_LINK, _LONG_NAME, _RECORDS, _GLOBAL_RECORDS = b"K", b"L", b"x", b"g"
_HARD_LINK = b"1"
_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    _HARD_LINK: stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_WITH_CONTENT = {b"0", b"\0", b"7"}
_DEVICES = {b"3", b"4"}


class Stream(Protocol):
    """What a tar is read from."""

    def read(self, size: int) -> bytes: ...
    def read_exactly(self, size: int) -> bytes: ...


class Content:
    """A file's bytes in the stream; what is not read is skipped when the next member is asked for."""

    def __init__(self, stream: Stream, size_bytes: int) -> None:
        self._stream = stream
        self._left = size_bytes
        self._padding = -size_bytes % BLOCK_BYTES

    def read(self, size: int, /) -> bytes:
        """From 1 to ``size`` bytes, or none at the end. Raises BuildError when the archive ends first."""
        if not self._left or not size:
            return b""
        data = self._stream.read(min(size, self._left)) or self._stream.read_exactly(1)
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Goes to the next header."""
        while self.read(MOST_RECORD_BYTES):
            pass
        self._stream.read_exactly(self._padding)


@dataclass(slots=True)
class _Extensions:
    """What headers before a member's own say about it, in so many bytes."""

    size_bytes: int = 0
    records: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes | None = None
    link: bytes | None = None


def is_header(block: bytes) -> bool:
    """True for a block whose checksum is right, and which is not the end's block of zeros."""
    if len(block) != BLOCK_BYTES or not any(block):
        return False
    stored = block[148:156]
    try:
        return _number(stored) == sum(block) - sum(stored) + 8 * ord(" ")
    except ValueError:
        return False


def read_entries(stream: Stream, path_of: Callable[[str], str] = clean) -> Iterator[tuple[Entry, Content]]:
    """Every member with its content, which is to be read before the next is asked for.

    ``path_of`` makes paths of names, those of hard links' targets too. Raises BuildError for what is no archive or a
    damaged one, or has members that no file can be made of.
    """
    extensions = _Extensions()
    known = False
    while (block := stream.read(BLOCK_BYTES)) != b"":
        block += stream.read_exactly(BLOCK_BYTES - len(block))
        if not any(block):
            return
        if not is_header(block):
            wrong = "the archive is damaged: a tar header has a wrong checksum" if known else "it is not a tar archive"
            raise BuildError(wrong)
        known = True
        kind = block[156:157]
        if kind in {_LONG_LINK, _LONG_NAME, _RECORDS, _GLOBAL_RECORDS}:
            _extend(extensions, kind, _read_record(stream, block, MOST_RECORD_BYTES - extensions.size_bytes))
            continue
        entry = _entry(block, extensions, path_of)
        content = Content(stream, entry.size_bytes)
        yield entry, content
        content.skip()
        extensions = _Extensions()


def _read_record(stream: Stream, block: bytes, most_bytes: int) -> bytes:
    size_bytes = _field(block, 124, 12, "size")
    if not 0 <= size_bytes <= most_bytes:
        raise BuildError(f"the archive is damaged: an extended header of {size_bytes} bytes")
    data = stream.read_exactly(size_bytes)
    stream.read_exactly(-size_bytes % BLOCK_BYTES)
    return data


def _extend(extensions: _Extensions, kind: bytes, data: bytes) -> None:
    extensions.size_bytes += len(data)
    if kind == _LONG_NAME:
        extensions.name = data.split(b"\0", 1)[0]
    elif kind == _LONG_LINK:
        extensions.link = data.split(b"\0", 1)[0]
    elif kind == _RECORDS:
        extensions.records |= _parse_records(data)
    # Global records hold comments (git's commit); no reader of layers lets them change members.


def _parse_records(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if length.isdigit() else at
        record = data[at + len(length) + 1 : end]
        tag, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(data):
            raise BuildError("the archive is damaged: an extended header is not made of records")
        records[tag] = value[:-1]
        at = end
    return records


def _entry(block: bytes, extensions: _Extensions, path_of: Callable[[str], str]) -> Entry:
    records = extensions.records
    kind = block[156:157]
    raw_name = records.get(b"path") or extensions.name or _name(block)
    raw_link = records.get(b"linkpath") or extensions.link or block[157:257].split(b"\0", 1)[0]
    name = _decode(raw_name)
    if kind not in _TYPES or any(tag.startswith(b"GNU.sparse.") for tag in records):
        raise BuildError(f"{name!r} in the archive is of a kind ({kind!r}) that cannot be unpacked")
    file_type = _TYPES[kind]
    if kind == b"\0" and raw_name.endswith(b"/"):  # how directories were written before ustar
        file_type = stat.S_IFDIR
    has_content = kind in _WITH_CONTENT and file_type == stat.S_IFREG
    size_bytes = _recorded(records, b"size", block, 124, 12) if has_content else 0
    if size_bytes < 0:
        raise BuildError(f"the archive is damaged: {name!r} has {size_bytes} bytes")
    link = _decode(raw_link)
    return Entry(
        path=path_of(name),
        mode=file_type | stat.S_IMODE(_field(block, 100, 8, name)),
        uid=_recorded(records, b"uid", block, 108, 8),
        gid=_recorded(records, b"gid", block, 116, 8),
        mtime_ns=_mtime_ns(records, block, name),
        size_bytes=size_bytes,
        link=path_of(link) if kind == _HARD_LINK else link if file_type == stat.S_IFLNK else "",
        hardlink=kind == _HARD_LINK,
        device=(_field(block, 329, 8, name), _field(block, 337, 8, name)) if kind in _DEVICES else (0, 0),
        xattrs=_xattrs(records) if records else {},
    )


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        return block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _recorded(records: dict[bytes, bytes], tag: bytes, block: bytes, start: int, length: int) -> int:
    """A number from its record, or else from its field."""
    value = records.get(tag)
    if value is None:
        return _field(block, start, length, tag.decode())
    if not value.isdigit():
        raise BuildError(f"the archive is damaged: {tag.decode()} is {value[:32]!r}")
    return int(value)


def _mtime_ns(records: dict[bytes, bytes], block: bytes, name: str) -> int:
    value = records.get(b"mtime")
    if value is None:
        return _field(block, 136, 12, name) * 1_000_000_000
    seconds, _, fraction = value.lstrip(b"-").partition(b".")
    digits = seconds + fraction[:9].ljust(9, b"0")
    if not digits.isdigit():
        raise BuildError(f"the archive is damaged: the time of {name!r} is {value[:32]!r}")
    return -int(digits) if value.startswith(b"-") else int(digits)


def _xattrs(records: dict[bytes, bytes]) -> dict[str, bytes]:
    names = ((_decode(tag), value) for tag, value in records.items())
    return {name.removeprefix(XATTR_RECORD): value for name, value in names if name.startswith(XATTR_RECORD)}


def _field(block: bytes, start: int, length: int, what: str) -> int:
    try:
        return _number(block[start : start + length])
    except ValueError as error:
        raise BuildError(f"the archive is damaged: a number in the header of {what!r} is not one") from error


def _number(raw: bytes) -> int:
    """An octal number, or GNU's big-endian one where the first bit is set. Raises ValueError."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (8 * len(raw) - 1)) - 1)
        return value - (1 << (8 * len(raw) - 1)) if raw[0] & 0x40 else value
    text = raw.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
