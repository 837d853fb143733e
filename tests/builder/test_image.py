"""Composing images, and writing them to files."""

import json
import stat
import tarfile
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.outputs import image_files as outputs
from builder.outputs.image import Image, ImageSet, compose
from builder.outputs.whole_files import replacing, write_text
from cache.oci import media_types
from cache.oci.config import ImageConfig, RootFS
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.manifest import Manifest, parse_manifest
from cache.oci.reference import Reference

NAMES = (Reference.parse("registry.example/team/app:1"), Reference.parse("app:2"))


def layer(content: bytes, media_type: str = media_types.OCI_LAYER_GZIP, urls: tuple[str, ...] = ()) -> Layer:
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(content), size=len(content), urls=urls)
    return Layer(descriptor, Digest.of(b"tar of " + content))


def image_of(*layers: Layer) -> Image:
    return compose(
        ImageConfig(os="linux", architecture="amd64", rootfs=RootFS(), created="1970-01-01T00:00:00Z"), layers
    )


def test_the_same_layers_give_the_same_image():
    one, other = image_of(layer(b"a"), layer(b"b")), image_of(layer(b"a"), layer(b"b"))
    assert one.manifest.raw == other.manifest.raw
    assert ImageConfig.from_json(one.config).rootfs.diff_ids == (layer(b"a").diff_id, layer(b"b").diff_id)
    assert parse_manifest(one.manifest.raw) == one.manifest


def test_docker_layers_get_oci_names_and_foreign_ones_stay():
    foreign = layer(b"f", media_types.DOCKER_FOREIGN_LAYER_GZIP, ("https://elsewhere.example/f",))
    image = image_of(layer(b"d", media_types.DOCKER_LAYER_GZIP), foreign)
    assert [d.media_type for d in image.manifest.layers] == [
        media_types.OCI_LAYER_GZIP,
        media_types.DOCKER_FOREIGN_LAYER_GZIP,
    ]
    assert image.manifest.layers[1].urls == ("https://elsewhere.example/f",)
    assert image.manifest.layers[0].digest == Digest.of(b"d")


@pytest.fixture
def blobs(tmp_path: Path) -> dict[Digest, Path]:
    files = {}
    for content in (b"a", b"b"):
        path = tmp_path / content.decode()
        path.write_bytes(content)
        files[Digest.of(content)] = path
    return files


def test_docker_archive_lists_every_layer_also_one_that_stands_twice(tmp_path, blobs):
    path = tmp_path / "new" / "image.tar"
    image = image_of(layer(b"a"), layer(b"b"), layer(b"a"))
    outputs.write_docker_archive(image, NAMES, blobs, path)
    with tarfile.open(path) as archive:
        names = archive.getnames()
        read = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]  # all are files
    (described,) = json.loads(read["manifest.json"])
    assert described["RepoTags"] == ["registry.example/team/app:1", "app:2"]
    assert [read[name] for name in described["Layers"]] == [b"a", b"b", b"a"]
    assert read[described["Config"]] == image.config
    assert len(names) == len(set(names)) == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_oci_layout_holds_every_blob_under_its_digest(tmp_path, blobs):
    layout = tmp_path / "layout"
    image = image_of(layer(b"a"), layer(b"b"))
    outputs.write_oci_layout(ImageSet((image,), image.manifest, {}), NAMES, blobs, layout, packed=False)
    index = json.loads((layout / "index.json").read_bytes())
    assert [d["annotations"]["org.opencontainers.image.ref.name"] for d in index["manifests"]] == ["1", "2"]
    manifest = parse_manifest((layout / "blobs/sha256" / image.manifest.digest.hex).read_bytes())
    assert isinstance(manifest, Manifest)
    for descriptor in (*manifest.children, manifest.descriptor):
        data = (layout / "blobs/sha256" / descriptor.digest.hex).read_bytes()
        assert (Digest.of(data), len(data)) == (descriptor.digest, descriptor.size)
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path) as out:
        out.writelines([b"new", None])  # type: ignore[list-item]  # fails after the first
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"cannot write .*/file/digest"):
        write_text(tmp_path / "file" / "digest", "sha256:…")
