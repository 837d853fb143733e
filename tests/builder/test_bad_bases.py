"""Base images that are broken, lie or are no images, each told by what it is; and odd ones that can be built on."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder import events
from builder.build import run_build
from builder.contexts.locations import DirectoryContext, LayoutContext
from builder.errors import BuildError
from builder.options import BuildOptions, Limits
from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.descriptor import Platform
from cache.oci.errors import OCIError
from tests.builder.test_contexts import packed
from tests.integration.building import write_files

DOCKER_V1 = {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}
PLATFORM = {"os": "linux", "architecture": "amd64"}
EMPTY_INDEX = {"mediaType": media_types.OCI_INDEX, "manifests": []}
CHART = "application/vnd.cncf.helm.config.v1+json"
LINUX = Platform(os="linux", architecture="amd64")
FILES = packed({"etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/empty": ""}, "w")


@dataclass
class Base:
    """A small image that is whole; what is changed before `write` is wrong with it."""

    layer: bytes = field(default_factory=lambda: gzip.compress(FILES))
    layer_type: str = media_types.OCI_LAYER_GZIP
    config: Any = field(
        default_factory=lambda: {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(FILES)]},
        }
    )
    config_type: str = media_types.OCI_CONFIG
    manifest: dict[str, Any] = field(default_factory=dict)
    """Members in place of its own."""
    platform: dict[str, str] | None = None
    """What its index says that it is for; None where it is in none."""
    stored: dict[str, bytes | None] = field(default_factory=dict)
    """Blobs in place of what they are called, None for none: "layer", "config" or "manifest"."""

    def write(self, layout: Path) -> LayoutContext:
        """The image as a layout."""
        blobs = layout / "blobs/sha256"
        blobs.mkdir(parents=True)

        def descriptor(name: str, data: bytes, media_type: str) -> dict[str, object]:
            content = self.stored.get(name, data)
            if content is not None:
                (blobs / digest_of(data).removeprefix("sha256:")).write_bytes(content)
            return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

        config = self.config if isinstance(self.config, bytes) else json.dumps(self.config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor("config", config, self.config_type),
            "layers": [descriptor("layer", self.layer, self.layer_type)],
        } | self.manifest
        entry = descriptor("manifest", json.dumps(manifest).encode(), manifest["mediaType"])
        if self.platform is not None:
            index = {"schemaVersion": 2, "manifests": [entry | {"platform": self.platform}]}
            entry = descriptor("index", json.dumps(index).encode(), media_types.OCI_INDEX)
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return LayoutContext(layout)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def build(tmp_path: Path, base: Base, step: str = "COPY f /etc/new", limits: Limits = Limits()) -> None:  # noqa: B008
    """Builds on the image, so that its files are needed."""
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM base\n{step}\n", "f": "f\n"})
    options = BuildOptions(
        context=DirectoryContext(context),
        contexts={"base": base.write(tmp_path / "layout")},
        platforms=(LINUX,),
        build_platform=LINUX,
        state_dir=tmp_path / "state",
        limits=limits,
    )
    heard: list[events.Event] = []
    await run_build(options, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, heard.append)


def config_without(name: str) -> Callable[[Base], None]:
    return lambda base: base.config.pop(name)


def config_with(**members: object) -> Callable[[Base], None]:
    return lambda base: base.config.update(members)


def change(**fields: object) -> Callable[[Base], None]:
    return lambda base: [setattr(base, name, value) for name, value in fields.items()] and None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change(manifest=DOCKER_V1), "unsupported manifest"),
        (change(manifest={"mediaType": "application/vnd.example+json"}), "unsupported manifest media type"),
        (change(manifest={"layers": "none"}), "not a valid image manifest"),
        (change(manifest={"config": None}), "not a valid image manifest"),
        (change(stored={"manifest": b"{}"}), "has other bytes than those of"),
        (change(stored={"config": b"{}"}), "other bytes than those of"),
        (change(stored={"config": None}), "No such file"),
        (change(stored={"layer": None}), "lacks sha256:"),
        (change(stored={"layer": b"x"}), "got 1"),
        (change(platform={"os": "linux", "architecture": "s390x"}), "no manifest for linux/amd64 in index"),
        (change(platform=PLATFORM, manifest=EMPTY_INDEX), "is inside another index"),
        (change(config=b"{"), "not a valid image config"),
        (change(config=b"[]"), "not a valid image config"),
        (change(config=b"{}", config_type=CHART), f"is not an image's but of the kind {CHART}"),
        (config_without("architecture"), "architecture"),
        (config_without("rootfs"), "rootfs"),
        (config_with(rootfs={"type": "layers", "diff_ids": []}), "1 layers, but its configuration has 0 diff_ids"),
        (config_with(rootfs={"type": "layers", "diff_ids": ["sha256:12"]}), "got '12'"),
        (config_with(rootfs={"type": "layers", "diff_ids": [digest_of(b"")]}), "does not hold what its image says"),
        (config_with(config={"Env": "PATH=/bin"}), "not a valid image config"),
        (config_with(config={"OnBuild": ["FORM x"]}), "unknown instruction"),
        (config_with(config={"User": "nobody-here"}), "nobody-here"),
        (change(layer_type="application/vnd.example.layer"), "application/vnd.example.layer"),
        (change(layer_type="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "encrypted"),
        (change(layer=b"\x1f\x8bxxxxxxxxxxx"), "cannot unpack layer sha256:"),
        (change(layer=gzip.compress(b"no tar" * 300)), "it is not a tar archive"),
    ],
)  # fmt: skip
async def test_broken(tmp_path, spoil, said):
    base = Base()
    spoil(base)
    with pytest.raises((BuildError, CacheError, OCIError)) as caught:
        await build(tmp_path, base, "WORKDIR /w\nCOPY f /etc/new")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "bend",
    [
        change(),
        change(platform=PLATFORM),
        change(layer=FILES, layer_type=media_types.OCI_LAYER),
        change(layer=FILES),
        change(layer=zstandard.compress(FILES)),
        change(config_type="application/octet-stream"),
        change(manifest={"mediaType": media_types.DOCKER_MANIFEST}, layer_type=media_types.DOCKER_LAYER_GZIP),
        change(layer_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        config_with(history=None, config=None, created="yesterday"),
        config_with(history=[{"created_by": "x"}, {"created_by": "y"}, {"empty_layer": True}]),
        config_with(config={"Env": ["FOO", "=x", ""], "WorkingDir": "relative/../x", "Cmd": None, "Volumes": {"": {}}}),
        config_with(config={"ExposedPorts": {"http": {}}, "Labels": {"": ""}, "StopSignal": "SIGNONE"}),
        config_with(unknown={"a": [1]}, architecture="s390x"),
    ],
)
async def test_odd(tmp_path, bend):
    base = Base()
    bend(base)
    await build(tmp_path, base)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(unpacked_bytes=1000), "more than 1000 bytes unpacked (--max-unpacked-bytes)"),
        (Limits(files=1), "more than 1 files (--max-files)"),
    ],
)
async def test_layers_that_unpack_to_too_much(tmp_path, limits, said):
    base = Base()
    with pytest.raises(BuildError, match="cannot unpack layer sha256:") as caught:
        await build(tmp_path, base, limits=limits)
    assert said in str(caught.value)
