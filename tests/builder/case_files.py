"""Cases as files, ``cases/NAME/``: a Dockerfile, perhaps a context, and what must come out.

    Dockerfile      ``ARG BASE`` gives it the small base image
    context/        the build context; empty when there is none
    setup.sh        run in a copy of the context, for what git does not keep (modes, links to nowhere, odd names)
    arguments       more arguments of ``crossdock build``, one a line
    error.txt       what a text that is no Dockerfile is refused with (nothing is built)
    failure.txt     what the build ends with, and in its first line the exit status
    warnings.txt    what ``--check`` warns of
    image.txt       configuration, history and the listing of each layer that the build added

``CROSSDOCK_WRITE_CASES=1 pytest tests/builder/test_cases.py`` writes image.txt, failure.txt and warnings.txt as they
come out: read the difference before you commit it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.oci.digest import Digest

CASES = Path(__file__).parent / "cases"
WRITE = bool(os.environ.get("CROSSDOCK_WRITE_CASES"))
_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: stat.S_IFREG,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_LONGEST_SHOWN = 300
_DEFAULT_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Case:
    """One directory of ``cases``."""

    directory: Path

    @property
    def dockerfile(self) -> Path:
        return self.directory / "Dockerfile"

    def context(self, where: Path) -> Path:
        """A copy of the case's context, with modes as git keeps them, whatever the umask of the checkout was."""
        context = where / "context"
        given = self.directory / "context"
        if given.is_dir():
            shutil.copytree(given, context, symlinks=True)
        else:
            context.mkdir()
        for path in (context, *context.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        setup = self.directory / "setup.sh"
        if setup.is_file():
            subprocess.run(["sh", "-eu", str(setup)], cwd=context, check=True, timeout=60, umask=0o022)
        return context

    def arguments(self, **values: object) -> list[str]:
        """The case's own arguments, with ``{name}`` filled in."""
        file = self.directory / "arguments"
        return [line.format_map(values) for line in file.read_text().splitlines()] if file.is_file() else []

    def expect(self, name: str, found: str) -> None:
        """Compares with what is written in the case."""
        path = self.directory / name
        if WRITE:
            path.write_text(found)
        assert found == path.read_text()


def cases_with(*names: str) -> list[Case]:
    """The cases that have one of these files."""
    found = (path for path in sorted(CASES.iterdir()) if any((path / name).is_file() for name in names))
    return [Case(path) for path in found]


def describe(layout: Path, base_layers: int) -> str:
    """The only image of an OCI layout as text; the first ``base_layers`` are those of its base."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]))
    config = json.loads(_blob(layout, manifest["config"]["digest"]))
    return describe_parts(config, [_blob(layout, layer["digest"]) for layer in manifest["layers"][base_layers:]])


def describe_parts(config: dict[str, Any], layers: Sequence[bytes]) -> str:
    """The text of an image with this configuration and these layers on top of its base."""
    lines = [*_config_lines(config), *_history_lines(config)]
    for number, layer in enumerate(layers, 1):
        lines += [f"layer {number}", *_listing(layer)]
    return "\n".join(lines) + "\n"


def base_layer_count(layout: Path, base_diff_ids: Sequence[str]) -> int:
    """How many layers of the image are its base's."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]))
    diff_ids = json.loads(_blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    return len(base_diff_ids) if diff_ids[: len(base_diff_ids)] == list(base_diff_ids) else 0


def diff_ids(layout: Path) -> list[str]:
    """The layers of the only image of a layout."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]))
    found: list[str] = json.loads(_blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    return found


def _blob(layout: Path, digest: str) -> bytes:
    data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert str(Digest.of(data)) == digest
    return data


def _config_lines(config: dict[str, Any]) -> list[str]:
    lines = [f"author: {config['author']}"] if "author" in config else []
    for name, value in sorted(config.get("config", {}).items()):
        if name == "Env":
            value = [entry for entry in value if entry != _DEFAULT_ENV]
        if value:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    return lines


def _history_lines(config: dict[str, Any]) -> list[str]:
    entries = [entry for entry in config.get("history", []) if entry.get("comment") == "buildkit.dockerfile.v0"]
    return [f"history{' (empty)' if entry.get('empty_layer') else ''}: {entry['created_by']!r}" for entry in entries]


def _listing(blob: bytes) -> list[str]:
    lines = []
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        for member in archive:
            assert member.type in _KINDS, member
            mode = stat.filemode(_KINDS[member.type] | member.mode)
            what = _content(archive, member)
            attributes = sorted(pair for pair in member.pax_headers.items() if pair[0].startswith("SCHILY.xattr."))
            what += "".join(f" {name.removeprefix('SCHILY.xattr.')}={value}" for name, value in attributes)
            lines.append(f"  {mode} {member.uid}:{member.gid} {_shown(member.name)}{what}")
    return lines


def _shown(name: str) -> str:
    """A name on one line, whatever bytes it has."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else repr(shown)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.issym():
        return f" -> {_shown(member.linkname)}"
    if member.islnk():
        return f" = {_shown(member.linkname)}"
    if member.isdev() and not member.isfifo():
        return f" {member.devmajor}:{member.devminor}"
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        return ""
    data = file.read()
    if len(data) > _LONGEST_SHOWN or not data.isascii():
        return f" {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}"
    return f" {json.dumps(data.decode())}"
