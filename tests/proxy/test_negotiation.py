"""Which form of an image a client takes."""

from __future__ import annotations

import pytest

from cache.oci import media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.manifest import make_index
from proxy.requests.negotiation import instead_of, parse_accept, wants_no_index

DOCKER, OCI, INDEX, LIST = (
    media_types.DOCKER_MANIFEST,
    media_types.OCI_MANIFEST,
    media_types.OCI_INDEX,
    media_types.DOCKER_INDEX,
)


@pytest.mark.parametrize(
    ("headers", "kind", "expected"),
    [
        ([], OCI, False),
        (["*/*"], OCI, True),
        ([f"{OCI};q=0.5, text/html"], OCI, True),
        ([OCI.upper()], OCI, True),
        ([DOCKER, OCI], OCI, True),
        (["application/*"], OCI, True),
        (["text/*"], OCI, False),
        ([f"*/*, {OCI};q=0"], OCI, False),
        ([f"*/*, {OCI}; Q = 0.000"], OCI, False),
        (["*/*, application/*;q=0"], OCI, False),
        ([f"*/*;q=0, {OCI};q=0.001"], OCI, True),
        ([f"{OCI};charset=utf-8"], OCI, True),
        ([" , ;, "], OCI, False),
    ],
)
def test_what_is_taken(headers: list[str], kind: str, expected: bool):
    assert parse_accept(*headers).takes(kind) is expected


@pytest.mark.parametrize(
    ("accept", "kind", "expected"),
    [
        (DOCKER, LIST, True),
        (f"{DOCKER}, {OCI}", INDEX, True),
        (f"{DOCKER}, {LIST}", INDEX, True),
        (f"{DOCKER}, {INDEX}", INDEX, False),
        (f"{DOCKER}, */*", INDEX, False),
        (f"{DOCKER}, {INDEX};q=0, */*", INDEX, True),
        (f"{DOCKER};q=0", INDEX, False),
        ("application/json", INDEX, False),
        ("", INDEX, False),
        (DOCKER, OCI, False),
    ],
)
def test_who_takes_no_index(accept: str, kind: str, expected: bool):
    assert wants_no_index(parse_accept(accept), kind) is expected


def test_what_comes_instead():
    def image(name: str, platform: str | None, kind: str) -> Descriptor:
        where = Platform.parse(platform) if platform else None
        return Descriptor(media_type=kind, digest=Digest.of(name.encode()), size=1, platform=where)

    nowhere, arm = image("nowhere", None, OCI), image("arm", "linux/arm64", OCI)
    oci, docker = image("oci", "linux/amd64", OCI), image("docker", "linux/amd64", DOCKER)
    index = make_index((nowhere, arm, oci, docker))
    assert instead_of(index, parse_accept(OCI)) == oci
    assert instead_of(index, parse_accept(DOCKER)) == docker
    assert instead_of(make_index((nowhere, arm, oci)), parse_accept(DOCKER)) is None
