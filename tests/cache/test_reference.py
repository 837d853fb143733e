"""References as docker, skopeo and containerd read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.oci.digest import Digest
from cache.oci.errors import InvalidReference
from cache.oci.reference import Reference, canonical_host, check_repository, check_tag

D = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", "latest", None),
        ("debian:bookworm-slim", "docker.io", "library/debian", "bookworm-slim", None),
        ("library/debian", "docker.io", "library/debian", "latest", None),
        ("docker.io/debian", "docker.io", "library/debian", "latest", None),
        ("index.docker.io/library/debian", "docker.io", "library/debian", "latest", None),
        ("registry-1.docker.io/debian:1", "docker.io", "library/debian", "1", None),
        ("DOCKER.IO/debian", "docker.io", "library/debian", "latest", None),
        ("org/app", "docker.io", "org/app", "latest", None),
        ("org/team/app:v1", "docker.io", "org/team/app", "v1", None),
        ("ghcr.io/org/app:v1", "ghcr.io", "org/app", "v1", None),
        ("ghcr.io/app", "ghcr.io", "app", "latest", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhost:5000/app:v1", "localhost:5000", "app", "v1", None),
        ("LOCALHOST/app", "localhost", "app", "latest", None),
        ("host:5000/app", "host:5000", "app", "latest", None),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", "latest", None),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest", None),
        ("[2001:db8::1]/app:v1", "[2001:db8::1]", "app", "v1", None),
        (f"debian@{D}", "docker.io", "library/debian", None, D),
        (f"debian:bookworm@{D}", "docker.io", "library/debian", "bookworm", D),
        (f"localhost:5000/app@{D}", "localhost:5000", "app", None, D),
        (f"a@sha512:{'0' * 128}", "docker.io", "library/a", None, f"sha512:{'0' * 128}"),
        ("a__b/c-d/e.f/g---h", "docker.io", "a__b/c-d/e.f/g---h", "latest", None),
        ("localhost5000", "docker.io", "library/localhost5000", "latest", None),
        ("a:5000", "docker.io", "library/a", "5000", None),
        ("a:_", "docker.io", "library/a", "_", None),
        (f"a:{'T' * 128}", "docker.io", "library/a", "T" * 128, None),
        ("registry.example.com./app", "registry.example.com.", "app", "latest", None),
    ],
)
def test_parse(text, host, repository, tag, digest):
    reference = Reference.parse(text)
    expected_digest = Digest.parse(digest) if digest else None
    assert reference == Reference(host, repository, tag, expected_digest)
    assert Reference.parse(str(reference)) == reference
    assert reference.identifier == (digest or tag)
    assert reference.name == f"{host}/{repository}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/",
        "@",
        ":tag",
        "a:",
        "a@",
        "A",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "-a",
        "a-",
        ".a",
        "_a",
        "a b",
        "a:b c",
        "a:.b",
        "a:-b",
        "a:b:c",
        f"a:{'T' * 129}",
        "a@sha256:abc",
        "a@b",
        f"a@{D}@{D}",
        "ghcr.io/",
        "ghcr.io//a",
        "https://ghcr.io/a",
        "ghcr.io/a?ns=b",
        "user:pass@host/a",
        "host:port/a",
        "host:123456/a",
        "-host.io/a",
        "[::1/a",
        "a\n",
        "a:b\n",
        "é/a",
        "a/../b",
        "docker.io/" + "a" * 256,
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidReference, match="invalid image reference"):
        Reference.parse(text)


COMPONENT = st.from_regex(r"[a-z0-9]{1,5}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(
    host=st.sampled_from(["docker.io", "ghcr.io", "localhost:5000", "10.0.0.1"]),
    parts=st.lists(COMPONENT, min_size=2, max_size=4),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
)
def test_str_and_parse_are_inverses(host, parts, tag):
    reference = Reference(host, "/".join(parts), tag)
    assert Reference.parse(str(reference)) == reference


def test_the_same_repository_elsewhere():
    reference = Reference.parse("ghcr.io/a:v1")
    digest = Digest.parse(D)
    assert str(reference.with_digest(digest)) == f"ghcr.io/a@{D}"
    assert str(reference.with_digest(digest).with_tag("v2")) == "ghcr.io/a:v2"


def test_a_reference_is_checked_however_it_is_made():
    for host, repository, tag in (("a b", "a", "v1"), ("a.io", "A", "v1"), ("a.io", "a", "v 1")):
        with pytest.raises(InvalidReference):
            Reference(host, repository, tag)


def test_checks_return_what_they_are_given():
    assert check_repository("a/b") == "a/b"
    assert check_tag("v1") == "v1"
    with pytest.raises(InvalidReference, match="255"):
        check_repository("a" * 256)


@pytest.mark.parametrize(("host", "canonical"), [("Index.Docker.io", "docker.io"), ("GHCR.io", "ghcr.io")])
def test_canonical_hosts(host, canonical):
    assert canonical_host(host) == canonical
