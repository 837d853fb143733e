"""A blob's bytes on their way into a bucket, cut into parts and hashed as they come.

Parts wait in memory as long as a budget that all writers share has room, and in a temporary file without a name
otherwise: memory is bounded however many write at once, and however slow the bucket is.

Everything here blocks, and lets ``OSError`` through to the store that uses it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from cache.errors import DigestMismatch
from cache.oci.digest import Digest
from cache.s3.part_sizes import part_bytes
from cache.verify import check_expected

READ_BYTES = 1 << 18
"""Pieces in which parts are read and sent: each of the many connections buffers one or two."""

Data = bytes | memoryview


class MemoryBudget:
    """How many bytes of parts may be in memory, of all writers together."""

    def __init__(self, limit_bytes: int) -> None:
        self._lock = threading.Lock()
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Takes so much of it; False when there is not so much."""
        with self._lock:
            if self.used_bytes + size_bytes > self._limit_bytes:
                return False
            self.used_bytes += size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Gives back so much."""
        with self._lock:
            self.used_bytes -= size_bytes


class _Scratch:
    """A temporary file without a name, of one writer: places in it are used again. Its lock keeps a reader away from
    ``close``."""

    def __init__(self, directory: Path | None) -> None:
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by its writer
        self._free: list[tuple[int, int]] = []
        self._end = 0

    def place(self, size_bytes: int) -> int:
        """Where there is room for so much."""
        for index, (start, room_bytes) in enumerate(self._free):
            if room_bytes >= size_bytes:
                del self._free[index]
                return start
        self._end += size_bytes
        return self._end - size_bytes

    def release(self, start: int, size_bytes: int) -> None:
        """Lets the place be used again."""
        self._free.append((start, size_bytes))

    def write(self, start: int, data: Data) -> None:
        with self._lock:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self._file.fileno(), rest, start)
                start += written
                rest = rest[written:]

    def read(self, start: int, size_bytes: int) -> bytes:
        with self._lock:
            return os.pread(self._file.fileno(), size_bytes, start)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Part:
    """A part: first it grows, then it is read as often as it takes, then it is released."""

    def __init__(self, number: int, budget: MemoryBudget) -> None:
        self.number = number
        self.size_bytes = 0
        self.room_bytes = part_bytes(number)
        self.sha256 = b""
        self._budget = budget
        self._chunks: list[Data] = []
        self._scratch: _Scratch | None = None
        self._start = 0

    def append(self, data: Data) -> bool:
        """Keeps ``data`` in memory, or in the file when it has one; False when neither is possible."""
        if self._scratch is not None:
            self._scratch.write(self._start + self.size_bytes, data)
        elif self._budget.take(len(data)):
            self._chunks.append(data)
        else:
            return False
        self.size_bytes += len(data)
        return True

    def move_to(self, scratch: _Scratch) -> None:
        """Moves what is in memory to the file."""
        if self._scratch is not None:
            return
        self._start = scratch.place(self.room_bytes)
        position = self._start
        for chunk in self._chunks:
            scratch.write(position, chunk)
            position += len(chunk)
        self._scratch = scratch
        self._forget()

    @property
    def in_memory(self) -> list[Data] | None:
        """What it holds, when that is in memory."""
        return self._chunks if self._scratch is None else None

    def blocks(self) -> Iterator[Data]:
        """All bytes, in pieces."""
        start = 0
        yield from self._chunks
        while self._scratch is not None and start < self.size_bytes:
            yield (piece := self.read(start, READ_BYTES))
            start += len(piece)

    def read(self, start: int, size_bytes: int) -> bytes:
        """A piece of what is in the file."""
        if self._scratch is None:
            raise RuntimeError("a part in memory is not read from its file")
        return self._scratch.read(self._start + start, min(size_bytes, self.size_bytes - start))

    def release(self) -> None:
        """Lets go of memory or file."""
        if self._scratch is not None:
            self._scratch.release(self._start, self.room_bytes)
            self._scratch = None
        self._forget()

    def _forget(self) -> None:
        self._budget.give(sum(map(len, self._chunks)))
        self._chunks = []


class Intake:
    """A blob being written. The lock orders ``discard`` behind work whose caller was cancelled meanwhile.

    ``expected`` is the digest when it is known beforehand: then parts may leave as soon as they are full. Else they are
    all kept, in the file, until the digest is known.
    """

    def __init__(self, expected: Digest | None, budget: MemoryBudget, directory: Path | None) -> None:
        self.size_bytes = 0
        self._expected = expected
        self._budget = budget
        self._directory = directory
        self._lock = threading.Lock()
        self._hash = hashlib.new(expected.algorithm if expected else "sha256")
        self._part = Part(1, budget)
        self._part_hash = hashlib.sha256()
        self._parts: list[Part] = []
        self._scratch: _Scratch | None = None
        self._ended = False

    def add(self, chunks: list[bytes]) -> list[Part]:
        """Appends bytes, and returns the parts that this has filled."""
        with self._lock:
            if self._ended:
                raise RuntimeError("the blob's writer has ended: nothing more can be written")
            known = len(self._parts)
            for chunk in chunks:
                self.size_bytes += len(chunk)
                rest = memoryview(chunk)
                while rest:
                    taken = rest[: self._part.room_bytes - self._part.size_bytes]
                    self._append(taken)
                    rest = rest[len(taken) :]
                    if self._part.size_bytes == self._part.room_bytes:
                        self._end_part()
            return self._parts[known:]

    def finish(self, digest: Digest) -> list[Part]:
        """All parts, the last of them ended (it may be empty when it is the only one), if the bytes have this digest.

        Raises DigestMismatch, and ValueError for another than the expected one.
        """
        with self._lock:
            check_expected(self._expected, digest)
            if self._ended:
                raise RuntimeError("the blob's writer has ended: nothing more can be written")
            actual = Digest(digest.algorithm, self._hash_by(digest.algorithm))
            if actual != digest:
                raise DigestMismatch(digest, actual, self.size_bytes)
            if self._part.size_bytes or not self._parts:
                self._end_part()
            self._ended = True
            return list(self._parts)

    def discard(self) -> None:
        """Lets go of everything."""
        with self._lock:
            self._ended = True
            for part in (*self._parts, self._part):
                part.release()
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def _append(self, data: memoryview) -> None:
        self._hash.update(data)
        if self._hashes_parts:
            self._part_hash.update(data)
        if not self._part.append(data):
            self._part.move_to(self._file())
            self._part.append(data)

    @property
    def _hashes_parts(self) -> bool:
        """False as long as the blob's own hash is the part's as well."""
        return bool(self._parts) or self._hash.name != "sha256"

    def _end_part(self) -> None:
        part = self._part
        part.sha256 = (self._part_hash if self._hashes_parts else self._hash).digest()
        if self._expected is None and part.size_bytes == part.room_bytes:
            part.move_to(self._file())
        self._parts.append(part)
        self._part = Part(part.number + 1, self._budget)
        self._part_hash = hashlib.sha256()

    def _file(self) -> _Scratch:
        if self._scratch is None:
            self._scratch = _Scratch(self._directory)
        return self._scratch

    def _hash_by(self, algorithm: str) -> str:
        """The digest of all bytes; by another algorithm than the expected one they are read again."""
        if algorithm == self._hash.name:
            return self._hash.hexdigest()
        again = hashlib.new(algorithm)
        for part in (*self._parts, self._part):
            for chunk in part.blocks():
                again.update(chunk)
        return again.hexdigest()
