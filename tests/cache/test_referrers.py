"""How referrers are described and noted."""

from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import make_index, make_manifest, parse_manifest
from cache.oci.referrers import (
    INLINE_BYTES,
    brief,
    fallback_tag,
    of_type,
    referrer,
    with_referrer,
    without_referrer,
)


def test_the_fallback_tag():
    sha256, sha512 = Digest.of(b"x"), Digest.of(b"x", "sha512")
    assert fallback_tag(sha256) == f"sha256-{sha256.hex}"
    assert fallback_tag(sha512) == f"sha512-{sha512.hex[:64]}"


def test_a_descriptor_says_the_type_and_the_annotations():
    config = Descriptor(media_type="application/vnd.example.config", digest=Digest.of(b"{}"), size=2)
    image = make_manifest(config, (), annotations={"k": "v"})
    digest = Digest.of(image.raw, "sha512")
    found = referrer(image, digest)
    assert (found.digest, found.size, found.media_type) == (digest, len(image.raw), media_types.OCI_MANIFEST)
    assert (found.artifact_type, found.annotations) == (config.media_type, {"k": "v"})
    typed = parse_manifest(image.raw.replace(b'"config"', b'"artifactType":"a/b","config"', 1))
    assert referrer(typed, digest).artifact_type == "a/b"
    assert referrer(make_index(()), digest).artifact_type == ""


def test_notes_are_in_order_and_small():
    first, second, large = (
        Descriptor(
            media_type="m", digest=Digest("sha256", char * 64), size=size, annotations={"k": "v"}, artifact_type=t
        )
        for char, size, t in (("a", INLINE_BYTES, "a/b"), ("b", 1, ""), ("c", INLINE_BYTES + 1, "a/b"))
    )
    noted = with_referrer(with_referrer(with_referrer((), second), large), first)
    assert noted == (first, second, large)
    assert with_referrer(noted, first) == noted
    assert without_referrer(noted, second.digest) == (first, large)
    assert (of_type(noted, "a/b"), of_type(noted, "")) == ((first, large), noted)
    assert (brief(first), brief(large).annotations) == (first, {})
