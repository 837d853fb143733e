"""Size and digest of a stream."""

import pytest

from cache.errors import DigestMismatch, SizeMismatch
from cache.oci.digest import Digest
from cache.verify import Verifier, check_expected, verified

DATA = b"some content"


async def stream(*chunks):
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [None, len(DATA)])
async def test_the_right_content_passes_unchanged(algorithm, size):
    chunks = stream(DATA[:5], b"", DATA[5:])
    passed = [chunk async for chunk in verified(chunks, Digest.of(DATA, algorithm), size)]
    assert passed == [DATA[:5], b"", DATA[5:]]


async def test_an_empty_stream():
    assert [chunk async for chunk in verified(stream(), Digest.of(b""), 0)] == []


async def test_other_content():
    with pytest.raises(DigestMismatch) as caught:
        async for _ in verified(stream(b"other"), Digest.of(DATA)):
            pass
    assert (caught.value.expected, caught.value.actual, caught.value.size) == (Digest.of(DATA), Digest.of(b"other"), 5)


async def test_too_few_bytes():
    with pytest.raises(SizeMismatch, match=f"expected 12 bytes for {Digest.of(DATA)}, got 4"):
        async for _ in verified(stream(b"some"), Digest.of(DATA), len(DATA)):
            pass


async def test_too_many_bytes_stop_at_the_first():
    chunks = verified(stream(DATA, b"!", b"never asked for"), Digest.of(DATA), len(DATA))
    assert await anext(chunks) == DATA
    with pytest.raises(SizeMismatch, match="got 13"):
        await anext(chunks)


def test_a_verifier_counts():
    verifier = Verifier(Digest.of(DATA))
    verifier.update(DATA)
    verifier.finish()
    assert verifier.seen_bytes == len(DATA)


def test_what_a_writer_was_opened_for():
    check_expected(None, Digest.of(DATA))
    check_expected(Digest.of(DATA), Digest.of(DATA))
    with pytest.raises(ValueError, match="cannot commit"):
        check_expected(Digest.of(DATA), Digest.of(b""))
