"""Stored names: pinned, since stores out there hold them, and never two things under one name."""

import pytest

from cache import paths
from cache.oci.digest import Digest

DIGEST = Digest("sha256", "ab" * 32)


def test_names_are_pinned():
    """A change here needs a new VERSION."""
    assert paths.blob(DIGEST) == f"v1/blobs/sha256/ab/{'ab' * 32}"
    assert paths.temporary("token") == "v1/incoming/token"
    assert paths.lock("0f") == "v1/locks/0f"
    assert paths.record("layers/x") == "v1/records/layers/x"
    assert paths.tag("docker.io", "library/debian", "v1") == "repositories/docker.io/library/debian/_tags/v1"
    assert paths.member(paths.HOSTED, "a", DIGEST) == f"repositories/_hosted/a/_members/sha256/{'ab' * 32}"
    assert paths.referrers(paths.HOSTED, "a", DIGEST) == f"repositories/_hosted/a/_referrers/sha256/{'ab' * 32}"
    assert paths.name(paths.HOSTED, "a/b") == "names/_hosted/a~b"
    assert paths.listed_name(paths.HOSTED, "names/_hosted/a~b") == "a/b"
    assert paths.layer("cd" * 32) == f"layers/cd/{'cd' * 32}"


@pytest.mark.parametrize("digest", [DIGEST, Digest.of(b"", "sha512")])
def test_a_digest_and_its_name_are_inverses(digest):
    assert paths.blob_digest(paths.blob(digest)) == digest


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v1/blobs/",
        f"v1/blobs/sha256/{'ab' * 32}",
        f"v1/blobs/sha256/cd/{'ab' * 32}",
        f"v2/blobs/sha256/ab/{'ab' * 32}",
        f"sha256/ab/{'ab' * 32}",
        f"v1/blobs/sha256/ab/{'ab' * 31}",
        f"v1/blobs/md5/ab/{'ab' * 16}",
        f"v1/blobs/sha256/ab/{'ab' * 32}/x",
        f"v1/blobs/sha256/ab/{'AB' * 32}",
    ],
)
def test_other_names_are_no_blobs(name):
    assert paths.blob_digest(name) is None


@pytest.mark.parametrize("namespace", ["", "a/b", "/"])
def test_a_namespace_is_one_component(namespace):
    with pytest.raises(ValueError, match="is not a namespace"):
        paths.tag(namespace, "a", "v1")


@pytest.mark.parametrize("repository", ["", "..", "a/../b", "_tags", "a/_tags", "A"])
def test_a_repository_cannot_be_one_of_our_names(repository):
    with pytest.raises(ValueError, match="is not a repository name"):
        paths.repository("docker.io", repository)


@pytest.mark.parametrize("tag", ["", "..", ".", "a/b", "-a"])
def test_a_tag_is_one_component(tag):
    with pytest.raises(ValueError, match="is not a tag"):
        paths.tag("docker.io", "a", tag)


def test_repositories_do_not_share_names():
    """``a`` with something below it, and ``a/b``: no record of the one lies under a prefix of the other's."""
    assert not paths.tag("n", "a/b", "v1").startswith(paths.tags("n", "a"))
    assert not paths.tag("n", "ab", "v1").startswith(paths.repository("n", "a"))


@pytest.mark.parametrize("name", ["a", "a/b", "repositories/localhost:5000/x/_tags/...a"])
def test_record_names(name):
    assert paths.check_record_name(name) == name
    assert paths.check_record_prefix(name + "/") == name + "/"


@pytest.mark.parametrize("prefix", ["", "a", "/", "a//", "../", "a/../"])
def test_other_prefixes_are_refused(prefix):
    with pytest.raises(ValueError, match=r"prefix|record's name"):
        paths.check_record_prefix(prefix)
