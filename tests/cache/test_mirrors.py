"""Mirrors as they are written on a command line."""

from __future__ import annotations

import pytest

from cache.oci.mirrors import parse_mirrors


def test_mirrors_stand_in_their_order_under_the_host_they_stand_in_for():
    maps = ["index.docker.io=b:5000/docker.io;GHCR.io=b:5000/ghcr.io", "ghcr.io=c", ""]
    assert parse_mirrors(["a", "a/hub"], maps) == {
        "docker.io": ("a", "a/hub", "b:5000/docker.io"),
        "ghcr.io": ("b:5000/ghcr.io", "c"),
    }
    assert parse_mirrors([], []) == {}


@pytest.mark.parametrize("text", ["ghcr.io", "ghcr.io=", "=b", "ghcr.io=http://b", "ghcr.io=b/UPPER", "g h=b"])
def test_what_is_no_map(text: str):
    with pytest.raises(ValueError, match=r"expected|is not"):
        parse_mirrors([], [text])


def test_what_is_no_mirror():
    with pytest.raises(ValueError, match="is not"):
        parse_mirrors(["http://a"], [])
