from __future__ import annotations

import pytest

from proxy.errors import Unknown
from proxy.requests.routing import Hosted, Proxied, route
from proxy.settings import make_config

CONFIG = make_config(
    {
        "upstream": ("docker.io=http://hub", "ghcr.io=http://ghcr", "reg.test:5001=http://reg"),
        "default-upstream": ("docker.io",),
        "hosted": ("cache", "team/x"),
    },
    "memory:",
)


@pytest.mark.parametrize(
    ("name", "ns", "expected"),
    [
        ("debian", None, "docker.io/library/debian"),
        ("org/app", None, "docker.io/org/app"),
        ("debian", "docker.io", "docker.io/library/debian"),
        ("debian", "registry-1.docker.io", "docker.io/library/debian"),
        ("debian", "GHCR.IO", "ghcr.io/debian"),
        ("cache/x", "ghcr.io", "ghcr.io/cache/x"),
        ("org/app", "reg.test:5001", "reg.test:5001/org/app"),
        ("ghcr.io/org/app", None, "ghcr.io/org/app"),
        ("ghcr.io/app", None, "ghcr.io/app"),
        ("docker.io/debian", None, "docker.io/library/debian"),
        ("index.docker.io/debian", None, "docker.io/library/debian"),
        ("ghcr.io", None, "docker.io/library/ghcr.io"),
        ("cached/x", None, "docker.io/cached/x"),
        ("team/y", None, "docker.io/team/y"),
    ],
)
def test_names_of_upstreams(name: str, ns: str | None, expected: str):
    found = route(CONFIG, name, ns)
    assert isinstance(found, Proxied)
    assert str(found) == expected


@pytest.mark.parametrize("name", ["cache", "cache/a/b", "team/x", "team/x/y"])
def test_names_that_are_hosted(name: str):
    assert route(CONFIG, name, None) == Hosted(name)


def test_a_registry_that_is_not_configured_is_never_reached():
    with pytest.raises(Unknown) as caught:
        route(CONFIG, "a", "169.254.169.254")
    assert "ghcr" not in str(caught.value)
    bare = make_config({"upstream": ("ghcr.io=http://ghcr",)}, "memory:")
    with pytest.raises(Unknown):
        route(bare, "quay.io/a", None)
