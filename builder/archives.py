"""Archives that ADD unpacks: recognised by their content, whatever their names are."""

from __future__ import annotations

from pathlib import Path

from builder.decompress import Compression, DecompressingReader
from builder.errors import BuildError
from builder.tarformat import BLOCK_BYTES
from builder.tarread import is_header
from builder.unpack import Unpacked, unpack_archive

_MAGICS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_LONGEST_MAGIC = max(len(magic) for magic, _ in _MAGICS)


def is_archive(path: str) -> bool:
    """True for a tar, compressed or not, whose first header can be read. Raises OSError."""
    with open(path, "rb") as file:
        try:
            block = DecompressingReader(file, _compression(path)).read_exactly(BLOCK_BYTES)
        except BuildError:
            return False  # too short, or only looks compressed: a plain file then
    return is_header(block)


def unpack_file(path: str, directory: Path) -> Unpacked:
    """Unpacks the archive at ``path`` into a new directory. Raises BuildError and OSError."""
    with open(path, "rb") as file:
        return unpack_archive(file, _compression(path), directory)


def _compression(path: str) -> Compression:
    with open(path, "rb") as file:
        start = file.read(_LONGEST_MAGIC)
    return next((kind for magic, kind in _MAGICS if start.startswith(magic)), "none")
