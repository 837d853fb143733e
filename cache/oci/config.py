"""Image configuration (OCI image-spec, "Image Configuration", with Docker's additions)."""

from __future__ import annotations

import msgspec

from cache.oci import codec
from cache.oci.descriptor import Platform
from cache.oci.digest import Digest


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Docker's health check; durations in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ``config`` object: how a container of the image is started."""

    user: str = msgspec.field(default="", name="User")
    exposed_ports: dict[str, dict[str, str]] | None = msgspec.field(default=None, name="ExposedPorts")
    env: tuple[str, ...] | None = msgspec.field(default=None, name="Env")
    entrypoint: tuple[str, ...] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: tuple[str, ...] | None = msgspec.field(default=None, name="Cmd")
    healthcheck: Healthcheck | None = msgspec.field(default=None, name="Healthcheck")
    args_escaped: bool = msgspec.field(default=False, name="ArgsEscaped")
    volumes: dict[str, dict[str, str]] | None = msgspec.field(default=None, name="Volumes")
    working_dir: str = msgspec.field(default="", name="WorkingDir")
    on_build: tuple[str, ...] | None = msgspec.field(default=None, name="OnBuild")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    stop_signal: str = msgspec.field(default="", name="StopSignal")
    shell: tuple[str, ...] | None = msgspec.field(default=None, name="Shell")


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of the image's past; ``empty_layer`` when it added no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers' diff_ids: digests of the uncompressed tars, lowest first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image configuration document. ``created`` is RFC 3339."""

    created: str = ""
    author: str = ""
    architecture: str
    os: str
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""
    config: ContainerConfig = ContainerConfig()
    rootfs: RootFS
    history: tuple[History, ...] = ()

    @classmethod
    def from_json(cls, data: bytes) -> ImageConfig:
        """The configuration in ``data``; fields that neither OCI nor Docker define are dropped.

        Raises InvalidManifest.
        """
        return codec.decode(data, cls, "image config")

    def to_json(self) -> bytes:
        return codec.encode(self)

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)


def scratch_config(platform: Platform) -> ImageConfig:
    """The configuration of an image with nothing in it."""
    return ImageConfig(os=platform.os, architecture=platform.architecture, variant=platform.variant, rootfs=RootFS())
