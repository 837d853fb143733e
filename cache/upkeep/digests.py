"""Digests by the million, in little more bytes than they are long.

Here a digest is its bytes: their number says the algorithm, and an object for each would take ten times as much.
"""

from __future__ import annotations

from collections.abc import Iterator

from cache.oci.digest import HEX_LENGTHS, Digest

SHARDS = 256
"""What is gone through in parts is parted by the digests' first byte."""
_NUMBER_BYTES = 4
_ALGORITHM_OF = {length // 2: algorithm for algorithm, length in HEX_LENGTHS.items()}


def pack(digest: Digest) -> bytes:
    """A digest's bytes."""
    return bytes.fromhex(digest.hex)


def unpack(packed: bytes) -> Digest:
    """The digest that has these bytes."""
    return Digest(_ALGORITHM_OF[len(packed)], packed.hex())


class Digests:
    """Digests, each with a number below 2^32, as often as they were added; in no order but that of their shards."""

    def __init__(self) -> None:
        self._shards: list[dict[int, bytearray]] = [{} for _ in range(SHARDS)]
        self._count = 0

    def add(self, packed: bytes, number: int = 0) -> None:
        """Adds a digest."""
        rows = self._shards[packed[0]]
        width = len(packed)
        if width not in rows:
            rows[width] = bytearray()
        rows[width] += number.to_bytes(_NUMBER_BYTES, "little") + packed
        self._count += 1

    def of(self, shard: int) -> Iterator[tuple[bytes, int]]:
        """Those of one shard, with their numbers."""
        for width, rows in self._shards[shard].items():
            yield from _rows(rows, width + _NUMBER_BYTES)

    def take(self, shard: int) -> Iterator[tuple[bytes, int]]:
        """Those of one shard, which are in it no longer."""
        taken, self._shards[shard] = self._shards[shard], {}
        self._count -= sum(len(rows) // (width + _NUMBER_BYTES) for width, rows in taken.items())
        return (found for width, rows in taken.items() for found in _rows(rows, width + _NUMBER_BYTES))

    def shards(self) -> list[int]:
        """The shards in which there are any."""
        return [shard for shard, rows in enumerate(self._shards) if rows]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for shard in range(SHARDS):
            yield from self.of(shard)


def _rows(rows: bytearray, width: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(rows), width):
        row = bytes(rows[start : start + width])
        yield row[_NUMBER_BYTES:], int.from_bytes(row[:_NUMBER_BYTES], "little")
