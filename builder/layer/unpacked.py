"""Unpacked layers that the builds on this machine share: a base image is unpacked once, and not by each build.

<state_dir>/unpacked/
├── <ids>/<chain id>/
│   ├── layer/        the layer's own directory, as overlayfs reads it
│   └── seal          what it was when it was finished; its time is that of the last use
└── <ids>.turns       has a byte for each chain id there may be; who unpacks a layer has a lock on it

Only overlayfs can share: there a layer is a directory of its own that no build writes to. What a layer becomes depends
on the layers below it, so the chain id names it (image-spec, config.md, "Layer ChainID"), and on what the builder's
user ids mean, so ``<ids>`` stands for these.

A directory is believed only if it is what its seal says: every status in it, change times included, which no program
can set back. A seal of an earlier boot counts for nothing, because nothing here is synced to the disk. A build holds a
lock on what it uses, and what is locked is not removed. Builds that need a layer at once take turns, so that one of
them unpacks it; where two do all the same, work is done twice and nothing is wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from builder.kept import Kept, hold, is_going, lock, most_bytes, remove, surplus
from builder.layer.snapshot import fingerprint
from cache.oci.digest import Digest

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Seal(msgspec.Struct, frozen=True):
    """``size_bytes`` is what the files hold, for the bound."""

    boot_id: str
    state: str
    size_bytes: int


@dataclass(slots=True)
class UnpackedLayers:
    """The unpacked layers below ``directory``, as one build uses them. All methods block, and may run side by side."""

    directory: Path
    max_bytes: int
    _turns: int = field(init=False)
    _locks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turns = os.open(self.directory.with_name(f"{self.directory.name}.turns"), os.O_RDWR | os.O_CREAT, 0o600)
        self._locks.append(self._turns)

    @classmethod
    def below(cls, state_dir: Path) -> UnpackedLayers:
        """Those of a state directory."""
        directory = state_dir / "unpacked" / _ids()
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory, most_bytes(directory))

    def take(self, chain: Digest) -> Path | None:
        """The layer's directory, locked until :meth:`close`, or None. One that is damaged is removed."""
        kept = self.directory / chain.hex
        held = lock(kept, fcntl.LOCK_SH)
        if held is None:
            return None
        if _read_seal(kept) != _seal(kept / "layer"):
            os.close(held)
            remove(kept)
            return None
        self._locks.append(held)
        os.utime(kept / "seal")
        return kept / "layer"

    def begin(self, chain: Digest) -> bool:
        """Whether it is this build's turn to unpack the layer, until :meth:`end`; not while another one is at it."""
        try:
            fcntl.lockf(self._turns, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(chain))
        except (BlockingIOError, PermissionError):  # either, by POSIX
            return False
        return True

    def end(self, chain: Digest) -> None:
        """Gives the turn up."""
        fcntl.lockf(self._turns, fcntl.LOCK_UN, 1, _place(chain))

    def keep(self, chain: Digest, layer: Path) -> Path:
        """Moves a finished directory here, on the same file system, and says where it lies now, locked.

        It stays where it was, and the build's own, when another build was first.
        """
        new = layer.with_name(f"{layer.name}-kept")
        new.mkdir(mode=0o755)
        self._locks.append(hold(new, fcntl.LOCK_SH))
        layer.rename(new / "layer")
        (new / "seal").write_bytes(msgspec.json.encode(_seal(new / "layer")))
        try:
            new.rename(self.directory / chain.hex)
        except OSError:  # ENOTEMPTY or EEXIST
            (new / "layer").rename(layer)
            return layer
        return self.directory / chain.hex / "layer"

    def close(self) -> None:
        """Gives up what the build has used, and removes what is too much of what no other one uses."""
        while self._locks:
            os.close(self._locks.pop())
        for path in surplus(self._kept(), self.max_bytes, time.time_ns()):
            remove(path)

    def _kept(self) -> Iterator[Kept]:
        """All that is whole; what a killed build left half removed goes."""
        for path in list(self.directory.iterdir()):
            seal = _read_seal(path)
            if is_going(path) or seal is None:
                remove(path)
                continue
            with contextlib.suppress(FileNotFoundError):
                yield Kept(path, seal.size_bytes, os.stat(path / "seal").st_mtime_ns)


def _place(chain: Digest) -> int:
    """Where in the file of turns the layer's byte is."""
    return int(chain.hex[:15], 16)


def _ids() -> str:
    """What the owners in a directory depend on: who we are, and which ids of the machine ours are."""
    ids = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))
    maps = b"".join(path.read_bytes() for path in ids)
    return f"{os.geteuid()}-{hashlib.sha256(maps).hexdigest()[:12]}"


def _seal(layer: Path) -> _Seal | None:
    """What is there now; None when it is not a whole directory."""
    try:
        root = os.stat(layer)
        found = fingerprint(layer)
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        return None
    state = hashlib.sha256(repr((root.st_mode, root.st_uid, root.st_gid, root.st_mtime_ns)).encode())
    state.update(found.digest())
    return _Seal(boot_id, state.hexdigest(), found.size_bytes())


def _read_seal(kept: Path) -> _Seal | None:
    try:
        return msgspec.json.decode((kept / "seal").read_bytes(), type=_Seal)
    except (OSError, msgspec.DecodeError):
        return None
