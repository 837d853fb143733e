"""Digests are what they say."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest, OCIError

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("text", [EMPTY, "sha512:" + "0f" * 64, "sha256:" + "a" * 64])
def test_parse_and_str_are_inverses(text):
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY.upper(),
        EMPTY.replace("sha256", "SHA256"),
        "sha256:" + "g" * 64,
        "sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
        "sha512:" + "a" * 64,
        "sha384:" + "a" * 96,
        "md5:" + "a" * 32,
        "sha256:" + "../" * 21 + "a",
        EMPTY[7:],
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidDigest, match="digest"):
        Digest.parse(text)


def test_the_error_is_one_of_ours_and_a_value_error():
    assert issubclass(InvalidDigest, OCIError)
    assert issubclass(InvalidDigest, ValueError)


@given(st.binary())
def test_a_digest_is_of_the_bytes(data):
    assert Digest.of(data).hex == hashlib.sha256(data).hexdigest()
    assert Digest.of(memoryview(data), "sha512").hex == hashlib.sha512(data).hexdigest()
    hasher = Digest.of(b"", "sha512").hasher()
    hasher.update(data)
    assert hasher.hexdigest() == Digest.of(data, "sha512").hex


def test_digests_are_values():
    assert {Digest.parse(EMPTY), Digest.of(b"")} == {Digest.of(bytearray())}
    assert sorted([Digest.of(b"", "sha512"), Digest.of(b"")]) == [Digest.of(b""), Digest.of(b"", "sha512")]
