"""The messages between the builder and its sandbox program: plain values, one after the other in a pipe.

Marshal, for json would cost each RUN 8 ms to import. Both ends are the same interpreter, and no other program gets to
write into these pipes.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False  # typing and collections.abc would cost each step some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any


def encode(value: Any) -> bytes:
    """One record: text, numbers, None, and tuples, lists and dicts of such."""
    return marshal.dumps(value)


def read(file: IO[bytes]) -> Any:
    """The next record. Raises EOFError, ValueError or TypeError where there is no whole one."""
    return marshal.load(file)  # noqa: S302 - written by our own other half, see above


def read_all(file: IO[bytes]) -> Iterator[Any]:
    """Every record up to the end of the file."""
    while True:
        try:
            yield read(file)
        except EOFError:
            return
