"""Archives that ADD unpacks: recognised by their content, whatever their names are.

What reads them is imported when there is a file that might be one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.options import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from builder.layer.unpack import Unpacked


def is_archive(path: str) -> bool:
    """True for a tar, compressed or not, whose first header can be read. Raises OSError."""
    from builder.layer.decompress import DecompressingReader
    from builder.layer.tarformat import BLOCK_BYTES
    from builder.layer.tarread import is_header

    with open(path, "rb") as file:
        try:
            block = DecompressingReader(file).read_exactly(BLOCK_BYTES)
        except BuildError:
            return False  # too short, or only looks compressed: a plain file then
    return is_header(block)


def unpack_file(path: str, directory: Path, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpacks the archive at ``path`` into a new directory. Raises BuildError and OSError."""
    from builder.layer.unpack import unpack_archive

    with open(path, "rb") as file:
        return unpack_archive(file, directory, limits)
