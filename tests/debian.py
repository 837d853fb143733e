"""A Debian base image that needs no registry: debootstrap makes its files, this module makes an OCI layout of them.

Made once (about a minute) and kept under ``.cache/`` of the checkout. Root only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from isal import igzip

CACHE = Path(__file__).parent.parent / ".cache"
SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates", "git", "openssh-client")
LEFT_OUT = (
    "dev",
    "proc",
    "sys",
    "debootstrap",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log/bootstrap.log",
    "etc/resolv.conf",
    "etc/hostname",
)
"""Neither documents nor packages' archives belong in a base image, and nothing of the machine that made it."""


def debian_layout() -> Path:
    """An OCI layout with one image, tagged ``base``: Debian's minimal system with what the executor image needs.

    Raises subprocess.CalledProcessError when debootstrap fails.
    """
    layout = CACHE / f"debian-{SUITE}-{'-'.join(PACKAGES)}-v1"
    CACHE.mkdir(exist_ok=True)
    with _lock(CACHE / "debian.lock"):
        if not layout.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="debian-") as made:
                _debootstrap(Path(made) / "root")
                write_layout(Path(made) / "root", Path(made) / "layout")
                (Path(made) / "layout").rename(layout)
    return layout


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _debootstrap(root: Path) -> None:
    print(f"making a base image of Debian {SUITE} with debootstrap (once, about a minute)", file=sys.stderr, flush=True)
    program = shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise FileNotFoundError("debootstrap is not installed (Debian package debootstrap)")
    command = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-1000:], file=sys.stderr)
        done.check_returncode()


MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""This machine's architecture as images name it."""


def write_layout(
    root: Path, layout: Path, config: dict[str, Any] | None = None, *, architecture: str = MACHINE
) -> None:
    """Makes an OCI layout with one image, tagged ``base``, of one layer that holds everything under ``root``."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _write_layer(root, blobs)
    image = {
        "architecture": architecture,
        "os": "linux",
        "config": config or {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "made by the tests of Crossdock"}],
    }
    prefix = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.manifest.v1+json",
        "config": _write_json(blobs, image, f"{prefix}.config.v1+json"),
        "layers": [{**layer, "mediaType": f"{prefix}.layer.v1.tar+gzip"}],
    }
    entry = _write_json(blobs, manifest, f"{prefix}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "base"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _write_layer(root: Path, blobs: Path) -> tuple[dict[str, Any], str]:
    """A gzipped tar of the tree as a blob: its descriptor without the media type, and its diff_id."""
    plain, packed = blobs / "layer.tar", blobs / "layer.tar.gz"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, ".", filter=_keep)
    with plain.open("rb") as source, igzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    diff_id = _digest(plain)
    plain.unlink()
    digest = _digest(packed)
    packed.rename(blobs / digest.removeprefix("sha256:"))
    size = (blobs / digest.removeprefix("sha256:")).stat().st_size
    return {"digest": digest, "size": size}, diff_id


def _keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = member.name.removeprefix("./")
    if any(path.startswith(f"{left_out}/") for left_out in LEFT_OUT):
        return None
    member.uname = member.gname = ""
    return member if member.isdir() or path not in LEFT_OUT else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _write_json(blobs: Path, value: dict[str, Any], media_type: str) -> dict[str, Any]:
    data = json.dumps(value, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def push_layout(layout: Path, destination: str, credentials: str | None = None) -> None:
    """Pushes the layout's image to ``HOST:PORT/NAME:TAG`` over plain HTTP; ``credentials`` are ``user:password``."""
    login = [f"--dest-creds={credentials}"] if credentials else []
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *login]
    subprocess.run([*command, f"oci:{layout}:base", f"docker://{destination}"], check=True)


@pytest.fixture(scope="session")
def debian_base() -> Path:
    """The OCI layout of ``debian_layout``."""
    return debian_layout()
