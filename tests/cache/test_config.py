"""Image configurations, as OCI and as Docker write them."""

import json

import pytest

from cache.oci.config import ContainerConfig, History, ImageConfig, RootFS, scratch_config
from cache.oci.descriptor import Platform
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest

DOCUMENT = {
    "created": "2026-01-02T03:04:05.678Z",
    "author": "somebody",
    "architecture": "arm",
    "os": "linux",
    "os.version": "10.0",
    "os.features": ["win32k"],
    "variant": "v7",
    "config": {
        "User": "app:app",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/entry"],
        "Cmd": ["a", "b"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "StartPeriod": 5, "Retries": 3},
        "ArgsEscaped": True,
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "OnBuild": ["RUN true"],
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "Shell": ["/bin/bash", "-c"],
    },
    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"layer"))]},
    "history": [
        {"created": "2026-01-02T03:04:05Z", "created_by": "ADD rootfs", "comment": "c", "author": "somebody"},
        {"created_by": "CMD a b", "empty_layer": True},
    ],
}
LEAST = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


@pytest.mark.parametrize("document", [DOCUMENT, LEAST])
def test_json_and_back(document):
    config = ImageConfig.from_json(json.dumps(document).encode())
    assert json.loads(config.to_json()) == document
    assert ImageConfig.from_json(config.to_json()) == config


def test_the_same_bytes_every_time():
    one = ImageConfig.from_json(json.dumps(DOCUMENT).encode())
    two = ImageConfig.from_json(json.dumps(dict(reversed(DOCUMENT.items())), indent=3).encode())
    assert one.to_json() == two.to_json()


def test_fields_are_what_they_are_called():
    config = ImageConfig.from_json(json.dumps(DOCUMENT).encode())
    assert config.platform == Platform(os="linux", architecture="arm", variant="v7")
    assert config.config.env == ("PATH=/bin", "EMPTY=")
    assert config.config.exposed_ports == {"80/tcp": {}}
    assert config.config.healthcheck.start_period == 5
    assert config.rootfs == RootFS(diff_ids=(Digest.of(b"layer"),))
    assert config.history[1] == History(created_by="CMD a b", empty_layer=True)


def test_what_docker_writes_besides():
    """Docker and Kaniko write null for empty lists and maps, and fields that OCI does not have."""
    docker = {
        **LEAST,
        "container": "0123",
        "docker_version": "27.0",
        "container_config": {"Hostname": "x", "Cmd": ["/bin/sh", "-c", "#(nop) CMD"]},
        "config": {
            "Hostname": "",
            "AttachStdin": False,
            "ExposedPorts": None,
            "Env": None,
            "Cmd": None,
            "Entrypoint": None,
            "Volumes": None,
            "WorkingDir": "",
            "OnBuild": None,
            "Labels": None,
            "Healthcheck": None,
            "Shell": None,
        },
    }
    config = ImageConfig.from_json(json.dumps(docker).encode())
    assert config.config == ContainerConfig()


@pytest.mark.parametrize("field", ["config", "history", "created", "author", "variant", "os.features", "os.version"])
def test_null_is_as_good_as_absent(field):
    config = ImageConfig.from_json(json.dumps({**LEAST, field: None}).encode())
    assert config == ImageConfig.from_json(json.dumps(LEAST).encode())


def test_null_diff_ids_are_none():
    """Some tools write an image without layers so."""
    config = ImageConfig.from_json(json.dumps({**LEAST, "rootfs": {"type": "layers", "diff_ids": None}}).encode())
    assert config.rootfs.diff_ids == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "architecture"),
        ({"os": 7}, "os"),
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:short"]}}, "digest"),
        ({"config": {"Env": "PATH=/bin"}}, "Env"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"history": {}}, "history"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(InvalidManifest, match=f"not a valid image config: .*{message}"):
        ImageConfig.from_json(json.dumps({**LEAST, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_configuration(data):
    with pytest.raises(InvalidManifest, match="not a valid image config"):
        ImageConfig.from_json(data)


def test_scratch():
    config = scratch_config(Platform(os="linux", architecture="arm64"))
    assert json.loads(config.to_json()) == {
        "architecture": "arm64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
