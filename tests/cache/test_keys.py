"""Cache keys are framed and versioned."""

import pytest

from cache.keys import CacheKey, KeyBuilder


def test_fields_cannot_run_into_each_other():
    one = KeyBuilder("run").text("a", "bc").text("d", "").key()
    other = KeyBuilder("run").text("a", "b").text("d", "c").key()
    assert one != other


def test_lists_of_different_length_differ():
    assert KeyBuilder("run").items("x", ["a", ""]).key() != KeyBuilder("run").items("x", ["a"]).text("x", "").key()


def test_kind_matters_and_order_of_a_mapping_does_not():
    assert KeyBuilder("run").key() != KeyBuilder("copy").key()
    assert (
        KeyBuilder("run").mapping("env", {"A": "1", "B": "2"}).key()
        == KeyBuilder("run").mapping("env", {"B": "2", "A": "1"}).key()
    )


def test_the_schema_is_pinned():
    """A change here needs a new SCHEMA_VERSION: caches out there hold keys of this form."""
    key = KeyBuilder("run").text("command", "true").items("shell", ["/bin/sh", "-c"]).key()
    assert key.hex == "a6e112ce4e3b3f80192eeed5ca7058491ce39d91ecea9246b05f28a0334dde66"


def test_names_that_are_not_utf8():
    assert KeyBuilder("copy").text("name", "\udcff").key() != KeyBuilder("copy").text("name", "?").key()


@pytest.mark.parametrize("text", ["", "a" * 63, "A" * 64, "g" * 64])
def test_a_key_is_64_hex_digits(text):
    with pytest.raises(ValueError, match="64 lower-case hex"):
        CacheKey(text)
