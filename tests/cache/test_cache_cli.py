"""``crossdock cache``: what it says of a store on the disk and in a real bucket."""

import asyncio
import json
import os
import time

import pytest
import structlog

from cache.catalog import Catalog, TagEntry
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.layers import StoreLayerCache
from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.manifest import make_manifest
from cache.paths import HOSTED, blob
from cache.stores import open_store
from cache.upkeep.cli import main
from tests.cache.conftest import new_location
from tests.cache.s3_use import put

CONFIG, LAYER = b"{}", b"layer" * 1000
KEY = CacheKey("ab" * 32)
IMAGE_BYTES = len(CONFIG) + len(LAYER)


@pytest.fixture(autouse=True)
def _logging():
    """Leaves the logging of other tests as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(params=["filesystem", "seaweedfs"])
def url(request, tmp_path):
    """The URL of an empty store."""
    if request.param == "filesystem":
        return f"file://{tmp_path}/store"
    request.getfixturevalue("s3_credentials")
    server = request.getfixturevalue("seaweedfs_server")
    request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL_S3", server.endpoint_url)
    return new_location(server.endpoint_url).url


def use(url, work):
    """What ``work`` makes of the store."""

    async def used():
        store = open_store(url, os.environ)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(used())


async def fill(store):
    """Two repositories, a hosted one and an upstream's, of the same image; and a builder's cached step."""
    config, layer = (
        Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        for media_type, data in ((media_types.OCI_CONFIG, CONFIG), (media_types.OCI_LAYER, LAYER))
    )
    manifest = make_manifest(config, (layer,))
    catalog = Catalog(store)
    for namespace, repository in ((HOSTED, "cache/app"), ("docker.io", "library/debian")):
        for descriptor, data in ((config, CONFIG), (layer, LAYER)):
            await catalog.put_blob_bytes(namespace, repository, descriptor, data)
        await catalog.put_manifest(namespace, repository, manifest)
        entry = TagEntry(manifest.descriptor, time.time() - 3 * 3600)
        await catalog.set_tag(namespace, repository, "v1", entry)
    step = CachedStep(KEY, Layer(layer, Digest.of(LAYER)), 2.0, "2026-01-02T03:04:05+00:00")
    await store.put(f"layers/ab/{KEY}", b"{}")
    await StoreLayerCache(store).save(step, None)
    return manifest


def said(capsys, *arguments):
    status = main(arguments)
    return status, capsys.readouterr().out


def test_stats_count_what_there_is(url, capsys):
    manifest = use(url, fill)
    status, out = said(capsys, "stats", "--store", url, "--by-prefix", "--json")
    found = json.loads(out)
    blob_bytes = IMAGE_BYTES + len(manifest.raw)
    assert status == 0
    assert (found["store"], found["blobs"], found["blob_bytes"], found["layers"]) == (url, 3, blob_bytes, 1)
    place = {"repositories": 1, "tags": 1, "members": 3, "manifests": 1, "named_bytes": blob_bytes}
    assert found["places"] == {"cache": place, "docker.io": place}
    assert found["unfinished"] == {"uploads": 0, "files": 0, "files_bytes": 0}


def test_stats_for_people(url, capsys):
    use(url, fill)
    _, out = said(capsys, "stats", "--store", url)
    lines = [line.split() for line in out.splitlines()]
    assert ["blobs", "3", "5.4", "kB"] in lines
    assert ["docker.io/", "1", "1", "3"] in lines
    assert ("abort rule none" in out) == url.startswith("s3://")


def test_unfinished_blobs_are_counted(tmp_path, capsys):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    (tmp_path / "store/v1/incoming/left").write_bytes(b"12345")
    _, out = said(capsys, "stats", "--store", url)
    assert ["on", "their", "way", "in", "1", "5", "B"] in [line.split() for line in out.splitlines()]


def test_unfinished_uploads_are_counted(seaweedfs_server, s3_credentials, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs_server.endpoint_url)
    location = new_location(seaweedfs_server.endpoint_url)
    upload = {"Bucket": location.bucket, "Key": location.key("v1/blobs/x")}
    upload["UploadId"] = seaweedfs_server.client().create_multipart_upload(**upload)["UploadId"]
    _, out = said(capsys, "stats", "--store", location.url, "--json")
    seaweedfs_server.client().abort_multipart_upload(**upload)
    assert json.loads(out)["unfinished"]["uploads"] == 1


def test_ls_names_tags_and_steps(url, capsys):
    manifest = use(url, fill)
    status, out = said(capsys, "ls", "--store", url, "--json")
    found = {item["name"]: item for item in map(json.loads, out.splitlines())}
    assert status == 0
    assert set(found) == {"cache/app:v1", "docker.io/library/debian:v1", f"layers/{KEY}"}
    tag, layer = found["cache/app:v1"], found[f"layers/{KEY}"]
    assert (tag["digest"], tag["size_bytes"]) == (str(manifest.digest), IMAGE_BYTES + len(manifest.raw))
    assert (layer["size_bytes"], layer["at"]) == (len(LAYER), 1767323045.0)


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("docker.io", ["docker.io/library/debian:v1"]),
        ("docker.io/library/", ["docker.io/library/debian:v1"]),
        ("cache/app", ["cache/app:v1"]),
        ("layers", [f"layers/{KEY}"]),
        ("dock", []),
    ],
)
def test_ls_below_a_prefix(tmp_path, capsys, prefix, names):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    _, out = said(capsys, "ls", "--store", url, prefix)
    head, *lines = out.splitlines()
    assert head.split() == ["SIZE", "AGE", "NAME"]
    assert [line.split()[-1] for line in lines] == names
    if "cache" in prefix:
        assert lines[0].split() == ["5.4", "kB", "3", "h", "cache/app:v1"]


def test_ls_goes_on_after_a_damaged_record(tmp_path, capsys):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    (tmp_path / "store/v1/records/repositories/docker.io/library/debian/_tags/v1").write_bytes(b"nonsense")
    status, out = said(capsys, "ls", "--store", url)
    assert status == 1
    assert "debian:v1  record repositories/docker.io/library/debian/_tags/v1 is damaged" in out
    assert "cache/app:v1" in out


def test_a_store_that_is_not_there_is_an_error_and_is_not_made(tmp_path, capsys):
    assert main(["stats", "--store", f"file://{tmp_path}/none"]) == 1
    assert f"there is no store at file://{tmp_path}/none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_bucket_that_is_not_there_is_an_error(seaweedfs_server, s3_credentials, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs_server.endpoint_url)
    assert main(["stats", "--store", "s3://no-such-bucket"]) == 1
    assert "NoSuchBucket" in capsys.readouterr().err


def damage(tmp_path):
    """Puts a wrong byte into the layer."""
    path = tmp_path / "store" / blob(Digest.of(LAYER))
    path.write_bytes(b"L" + LAYER[1:])


@pytest.mark.parametrize("prefix", ["", "docker.io", "cache/app", str(Digest.of(LAYER))[:12]])
def test_verify_finds_damage_and_leaves_it(tmp_path, capsys, prefix):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    assert said(capsys, "verify", "--store", url, prefix)[0] == 0
    damage(tmp_path)
    for _ in range(2):
        status, out = said(capsys, "verify", "--store", url, prefix)
        assert status == 1
        assert f"damaged {Digest.of(LAYER)}: expected {Digest.of(LAYER)}, but 5000 bytes came with sha256:" in out
        assert "1 damaged; " in out


def test_verify_elsewhere_finds_nothing(tmp_path, capsys):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    damage(tmp_path)
    assert said(capsys, "verify", "--store", url, "ghcr.io") == (0, "no blobs; 0 B read\n")


def test_verify_repairs(tmp_path, capsys):
    url = f"file://{tmp_path}/store"
    use(url, fill)
    damage(tmp_path)
    status, out = said(capsys, "verify", "--store", url, "--repair", "--json", "--bytes-per-second", "1e9")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert (lines[0]["digest"], lines[0]["put_aside"]) == (str(Digest.of(LAYER)), True)
    assert (lines[1]["good"], lines[1]["damaged"], lines[1]["put_aside"]) == (2, 1, 1)
    assert said(capsys, "verify", "--store", url)[0] == 0
    _, out = said(capsys, "stats", "--store", url, "--json")
    assert json.loads(out)["damaged"] == 1
    _, out = said(capsys, "verify", "--store", url, "cache/app")
    assert f"gone    {Digest.of(LAYER)}" in out


def test_verify_in_a_bucket(seaweedfs_server, s3_credentials, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs_server.endpoint_url)
    location = new_location(seaweedfs_server.endpoint_url)
    digest = use(location.url, lambda store: put(store, LAYER))
    key = location.key(blob(digest))
    seaweedfs_server.client().put_object(Bucket=location.bucket, Key=key, Body=b"other")
    assert said(capsys, "verify", "--store", location.url, "--repair")[0] == 1
    assert said(capsys, "verify", "--store", location.url) == (0, "no blobs; 0 B read\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("stats", "--store", "/path"), "is a path"),
        (("stats", "--store", "memory:"), "in memory"),
        (("ls", "--store", "file:///tmp", "a//b"), "no store"),
        (("dance",), "No such command"),
    ],
)
def test_wrong_usage(capsys, arguments, why):
    assert main(arguments) in (1, 2)
    assert why in capsys.readouterr().err


def test_without_store_it_is_the_proxys_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use(f"file://{tmp_path}/crossdock", lambda store: put(store, b"x"))
    assert said(capsys, "stats", "--json")[0] == 0
