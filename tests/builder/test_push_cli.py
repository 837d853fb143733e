"""crossdock push: archives and layouts of other programs, and ours, to registries."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from builder import push_cli

INDEX = "application/vnd.oci.image.index.v1+json"
SKOPEO = ("skopeo", "--insecure-policy")


@pytest.fixture
def sources(tmp_path: Path, busybox_layout: Path) -> dict[str, Path]:
    """The same image as an OCI layout, a tar of it, a docker-save archive by skopeo, and the last one in gzip."""
    docker = tmp_path / "docker.tar"
    command = [*SKOPEO, "copy", "-q", f"oci:{busybox_layout}", f"docker-archive:{docker}:app:1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with tarfile.open(tmp_path / "layout.tar", "w") as archive:
        archive.add(busybox_layout, ".")
    packed = tmp_path / "docker.tar.gz"
    with docker.open("rb") as plain, gzip.open(packed, "wb") as out:
        shutil.copyfileobj(plain, out)
    return {"layout": busybox_layout, "layout tar": tmp_path / "layout.tar", "docker": docker, "gzip": packed}


def push(*arguments: object) -> int:
    return push_cli.main([str(argument) for argument in arguments])


def config(image: str) -> object:
    command = [*SKOPEO, "inspect", "--tls-verify=false", "--config", image]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)["rootfs"]


@pytest.mark.parametrize("kind", ["layout", "layout tar", "docker", "gzip"])
def test_an_image_in_a_file_reaches_every_destination_and_can_be_pulled(tmp_path, registry, sources, kind):
    names = [f"{registry.host}/{name}" for name in ("one:1", "two:2")]
    files = (f"--digest-file={tmp_path}/digest", f"--image-name-with-digest-file={tmp_path}/names")
    assert push(sources[kind], *files, *(f"--destination={name}" for name in names)) == 0
    for number, name in enumerate(names):
        command = [*SKOPEO, "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/{number}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert config(f"docker://{name}") == config(f"oci:{sources['layout']}")
    digest = (tmp_path / "digest").read_text()
    assert (tmp_path / "names").read_text() == "".join(f"{name.rpartition(':')[0]}@{digest}\n" for name in names)


def test_what_the_registry_has_is_mounted_or_left_alone(registry, sources):
    assert push(sources["layout"], f"--destination={registry.host}/one:1") == 0
    before = registry.count("PUT", "/blobs/")
    assert push(sources["layout"], f"--destination={registry.host}/one:2") == 0
    assert registry.count("PUT", "/blobs/") == before


def test_an_index_is_pushed_whole(tmp_path, registry, sources):
    layout = tmp_path / "index"
    shutil.copytree(sources["layout"], layout)
    index = json.loads((layout / "index.json").read_bytes())
    (one,) = index["manifests"]
    child = {**one, "platform": {"os": "linux", "architecture": "amd64"}}
    child.pop("annotations", None)
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    index["manifests"] = [{"mediaType": INDEX, "digest": f"sha256:{digest}", "size": len(raw)}]
    (layout / "index.json").write_text(json.dumps(index))
    assert push(layout, f"--destination={registry.host}/multi:1") == 0
    command = [*SKOPEO, "inspect", "--tls-verify=false", "--raw", f"docker://{registry.host}/multi:1"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == raw


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda layout: (layout / "index.json").write_text("{"), "cannot be pushed: not a valid index.json"),
        (lambda layout: (layout / "index.json").unlink(), "is neither an OCI layout nor a docker-save archive"),
        (lambda layout: max((layout / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size).unlink(), "missing"),
    ],
)
def test_what_is_no_whole_image_is_not_pushed(tmp_path, registry, sources, capsys, broken, message):
    layout = tmp_path / "broken"
    shutil.copytree(sources["layout"], layout)
    broken(layout)
    assert push(layout, f"--destination={registry.host}/app:1") == 1
    assert message in capsys.readouterr().err
    assert registry.count("PUT") == 0
