"""Size and digest of a stream, checked in one place for everyone."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cache.errors import DigestMismatch, SizeMismatch
from cache.oci.digest import Digest


def check_expected(expected: Digest | None, digest: Digest) -> None:
    """Returns when a writer that was opened for ``expected`` (None = for anything) may commit ``digest``."""
    if expected is not None and digest != expected:
        raise ValueError(f"a writer for {expected} cannot commit {digest}")


class Verifier:
    """Counts and hashes what passes, and says at the end whether it was the expected content."""

    def __init__(self, expected: Digest, size: int | None = None) -> None:
        self.expected = expected
        self.expected_bytes = size
        self.seen_bytes = 0
        self._hash = expected.hasher()

    def update(self, data: bytes) -> None:
        """Adds ``data``. Raises SizeMismatch as soon as there is more than announced."""
        self.seen_bytes += len(data)
        if self.expected_bytes is not None and self.seen_bytes > self.expected_bytes:
            raise SizeMismatch(self.expected, self.expected_bytes, self.seen_bytes)
        self._hash.update(data)

    def finish(self) -> None:
        """Returns when size and digest are right. Raises SizeMismatch or DigestMismatch."""
        if self.expected_bytes is not None and self.seen_bytes != self.expected_bytes:
            raise SizeMismatch(self.expected, self.expected_bytes, self.seen_bytes)
        actual = Digest(self.expected.algorithm, self._hash.hexdigest())
        if actual != self.expected:
            raise DigestMismatch(self.expected, actual, self.seen_bytes)


async def verified(chunks: AsyncIterator[bytes], expected: Digest, size: int | None = None) -> AsyncIterator[bytes]:
    """``chunks`` unchanged; raises SizeMismatch or DigestMismatch at the first byte too many or at the end."""
    verifier = Verifier(expected, size)
    async for chunk in chunks:
        verifier.update(chunk)
        yield chunk
    verifier.finish()
