"""Manifests and indexes: raw bytes kept, kinds told apart, platforms chosen."""

import json

import pytest

from cache.oci import media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest, make_manifest, parse_manifest

CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
LAYER = {"mediaType": media_types.OCI_LAYER_GZIP, "digest": str(Digest.of(b"layer")), "size": 5}
IMAGE = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}


def entry(os, architecture, variant="", **more):
    platform = {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}
    digest = Digest.of(f"{os}/{architecture}/{variant}".encode())
    return {"mediaType": media_types.OCI_MANIFEST, "digest": str(digest), "size": 9, "platform": platform, **more}


def index(*entries):
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}).encode()


def raw(document=None, **fields):
    return json.dumps({**(IMAGE if document is None else document), **fields}).encode()


@pytest.mark.parametrize(
    ("stated", "asked", "kind"),
    [
        (media_types.OCI_MANIFEST, "", media_types.OCI_MANIFEST),
        (media_types.DOCKER_MANIFEST, "", media_types.DOCKER_MANIFEST),
        ("", media_types.DOCKER_MANIFEST, media_types.DOCKER_MANIFEST),
        ("", media_types.OCI_MANIFEST + "; charset=utf-8", media_types.OCI_MANIFEST),
        ("", "", media_types.OCI_MANIFEST),
        ("", "text/plain", media_types.OCI_MANIFEST),
        (media_types.OCI_MANIFEST, "application/json", media_types.OCI_MANIFEST),
        (media_types.OCI_MANIFEST, media_types.OCI_MANIFEST, media_types.OCI_MANIFEST),
    ],
)
def test_the_kind_of_an_image_manifest(stated, asked, kind):
    manifest = parse_manifest(raw(mediaType=stated) if stated else raw(), asked)
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == kind
    assert [layer.size for layer in manifest.layers] == [5]


def test_the_raw_bytes_are_kept():
    data = json.dumps(IMAGE, indent=7).encode() + b"\n\n"
    manifest = parse_manifest(data)
    assert manifest.raw == data
    assert manifest.descriptor == Descriptor(
        media_type=media_types.OCI_MANIFEST, digest=Digest.of(data), size=len(data)
    )


def test_an_index_without_a_media_type():
    parsed = parse_manifest(json.dumps({"schemaVersion": 2, "manifests": [entry("linux", "amd64")]}).encode())
    assert isinstance(parsed, Index)
    assert parsed.media_type == media_types.OCI_INDEX
    assert parsed.descriptor.digest == Digest.of(parsed.raw)


@pytest.mark.parametrize(
    ("data", "media_type", "message"),
    [
        (b"", "", "not a manifest"),
        (b"\xff", "", "not a manifest"),
        (b"[]", "", "expected a JSON object"),
        (b"[" * 100_000, "", "not a manifest"),
        (b"{}", "", "unsupported manifest media type"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "", "unsupported"),
        (raw(mediaType="application/vnd.docker.distribution.manifest.v1+json"), "", "unsupported"),
        (raw(mediaType=media_types.OCI_MANIFEST), media_types.OCI_INDEX, "but it came as"),
        (raw(mediaType=media_types.OCI_MANIFEST), media_types.DOCKER_MANIFEST, "but it came as"),
        (raw(), media_types.OCI_INDEX, "image index"),
        (raw({"schemaVersion": 2, "layers": []}), media_types.OCI_MANIFEST, "config"),
        (raw(layers=[{**LAYER, "digest": "sha256:short"}]), "", "digest"),
        (raw(layers=[{**LAYER, "digest": 7}]), "", "Digest"),
        (raw(layers=[{**LAYER, "size": -1}]), "", "negative size"),
        (raw(layers=[{**LAYER, "size": "5"}]), "", "int"),
        (raw(layers=[{**LAYER, "size": 1.5}]), "", "int"),
        (raw(layers=None), "", "not a valid image manifest"),
        (raw(schemaVersion="2"), "", "int"),
        (raw(annotations={"a": 1}), "", "str"),
    ],
)
def test_bad_manifests(data, media_type, message):
    with pytest.raises(InvalidManifest, match=message):
        parse_manifest(data, media_type)


@pytest.mark.parametrize("field", ["annotations", "subject", "artifactType"])
def test_null_is_as_good_as_absent(field):
    """Go programs write null for empty maps and pointers."""
    manifest = parse_manifest(raw(**{field: None}))
    assert (dict(manifest.annotations), manifest.subject, manifest.artifact_type) == ({}, None, "")


def test_null_in_descriptors_is_as_good_as_absent():
    nulls = {"urls": None, "annotations": None, "platform": None, "artifactType": None}
    assert parse_manifest(raw(layers=[{**LAYER, **nulls}])).layers == parse_manifest(raw()).layers


def test_children_are_what_a_registry_must_have():
    foreign = {**LAYER, "mediaType": media_types.DOCKER_FOREIGN_LAYER_GZIP, "urls": ["https://example.com/x"]}
    other = {**LAYER, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"}
    manifest = parse_manifest(raw(layers=[foreign, LAYER, other]))
    assert [child.media_type for child in manifest.children] == [media_types.OCI_CONFIG, media_types.OCI_LAYER_GZIP]
    assert len(manifest.layers) == 3


def test_subject_and_artifact_type():
    manifest = parse_manifest(raw(subject=CONFIG, artifactType="application/vnd.example"))
    assert manifest.subject.digest == Digest.of(b"{}")
    assert manifest.artifact_type == "application/vnd.example"


def test_a_manifest_that_we_make_is_read_back_and_always_the_same():
    config, layer = parse_manifest(raw()).config, parse_manifest(raw()).layers[0]
    made = make_manifest(config, (layer,), annotations={"b": "2", "a": "1"})
    assert parse_manifest(made.raw, made.media_type) == made
    assert make_manifest(config, (layer,), annotations={"a": "1", "b": "2"}).raw == made.raw
    assert json.loads(made.raw) == {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": CONFIG,
        "layers": [LAYER],
        "annotations": {"a": "1", "b": "2"},
    }
    docker = make_manifest(config, (), media_type=media_types.DOCKER_MANIFEST)
    assert json.loads(docker.raw)["layers"] == []
    assert parse_manifest(docker.raw).media_type == media_types.DOCKER_MANIFEST


LINUX_INDEX = index(
    entry("unknown", "unknown", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
    entry("linux", "arm", "v5"),
    entry("linux", "arm", "v7"),
    entry("linux", "arm64", "v8"),
    entry("linux", "amd64"),
    entry("windows", "amd64", annotations={}),
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("linux/amd64", "linux/amd64/"),
        ("linux/x86_64", "linux/amd64/"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/aarch64", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("windows/amd64", "windows/amd64/"),
    ],
)
def test_the_manifest_for_a_platform(wanted, chosen):
    parsed = parse_manifest(LINUX_INDEX)
    assert parsed.select(Platform.parse(wanted)).digest == Digest.of(chosen.encode())


@pytest.mark.parametrize("wanted", ["linux/s390x", "linux/arm/v6", "plan9/amd64"])
def test_no_manifest_for_a_platform(wanted):
    with pytest.raises(InvalidManifest, match=f"no manifest for {wanted} in index .*it has .*linux/amd64"):
        parse_manifest(LINUX_INDEX).select(Platform.parse(wanted))


def test_an_index_of_nothing():
    with pytest.raises(InvalidManifest, match="it has none"):
        parse_manifest(index()).select(Platform.parse("linux/amd64"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
    ],
)
def test_platforms(text, shown):
    assert str(Platform.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "linux", "nonsense", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_other_platforms_are_refused(text):
    with pytest.raises(ValueError, match="is not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("media_type", "compression", "foreign"),
    [
        (media_types.OCI_LAYER, "none", False),
        (media_types.OCI_LAYER_GZIP, "gzip", False),
        (media_types.OCI_LAYER_ZSTD, "zstd", False),
        (media_types.DOCKER_LAYER_GZIP, "gzip", False),
        (media_types.DOCKER_FOREIGN_LAYER_GZIP, "gzip", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "zstd", True),
        ("application/vnd.docker.image.rootfs.diff.tar", "none", False),
    ],
)
def test_media_types_of_layers(media_type, compression, foreign):
    assert media_types.layer_compression(media_type) == compression
    assert media_types.is_foreign_layer(media_type) is foreign
