"""SHA-256 of the files of a context, kept between builds: a file whose status is the same is not read again.

<state_dir>/file-digests/<digest of the context's path>     what is known of the files of one context

A status is device, inode, size and both times. No program can set the change time back, so equal ones mean equal
content, but for a file that is written to twice within one tick of its file system's clock. So, as for git's index
(Documentation/technical/racy-git.txt), a file counts only if it was at rest for a while before the build began.

Nothing here is needed: what is missing, damaged or written by another build meanwhile is computed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
import tempfile
import time
from pathlib import Path

from builder.execution.digests import file_digest
from builder.kept import Kept, surplus

MOST_FILES = 100_000
"""Of one context: 7 MB on the disk, 25 MB in memory."""
MAX_BYTES = 64 << 20
"""Of all contexts."""
SETTLING_NS = 2 * 10**9
"""The coarsest clock of a file system that a context may lie on (FAT's)."""

_MAGIC = b"crossdock file digests 1\n"
_STATUS = struct.Struct("<QQQqq")
_DIGEST_BYTES = hashlib.sha256().digest_size
_RECORD_BYTES = _STATUS.size + _DIGEST_BYTES
_START = len(_MAGIC) + _DIGEST_BYTES
"""Where the records begin: behind a digest of them all."""


class FileDigests:
    """The digests of the files in one context, as one build uses them, whose own directory is ``scratch``.

    ``at_ns`` is the time (Unix) at which the build begins.
    """

    def __init__(self, state_dir: Path, context: Path, scratch: Path, at_ns: int | None = None) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(context))).hexdigest()
        self._path = state_dir / "file-digests" / name
        self._scratch = scratch
        self._settled_before_ns = (time.time_ns() if at_ns is None else at_ns) - SETTLING_NS
        self._known = _read(self._path)
        self._used: dict[bytes, bytes] = {}
        self._new: dict[bytes, bytes] = {}

    def of(self, path: str) -> bytes:
        """The digest of a regular file. May be called from several threads; raises OSError."""
        status = os.lstat(path)
        record = _packed(status)
        known = self._known.get(record)
        if known is not None:
            self._used[record] = known
            return known
        digest = file_digest(path)
        settled = max(status.st_mtime_ns, status.st_ctime_ns) < self._settled_before_ns
        if settled and _packed(os.lstat(path)) == record:
            self._new[record] = digest
        return digest

    def save(self) -> None:
        """Keeps what was read, and what was known before as far as there is room; what fails is left undone."""
        with contextlib.suppress(OSError):
            if self._new:
                self._write()
            elif self._used:
                os.utime(self._path)

    def _write(self) -> None:
        files = {**self._new, **self._used, **self._known}
        records = b"".join(status + digest for status, digest in itertools.islice(files.items(), MOST_FILES))
        self._scratch.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(prefix="file-digests-", dir=self._scratch)
        with open(handle, "wb") as file:
            file.writelines((_MAGIC, hashlib.sha256(records).digest(), records))
        self._path.parent.mkdir(exist_ok=True)
        os.replace(new, self._path)
        _trim(self._path.parent)


def _packed(status: os.stat_result) -> bytes:
    return _STATUS.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> dict[bytes, bytes]:
    """What a file has, by status: nothing when it is not there, damaged or of another kind."""
    try:
        with path.open("rb") as file:
            data = file.read(_START + MOST_FILES * _RECORD_BYTES)
    except OSError:
        return {}
    if data[:_START] != _MAGIC + hashlib.sha256(data[_START:]).digest():
        return {}
    starts = range(_START, len(data), _RECORD_BYTES)
    return {data[at : at + _STATUS.size]: data[at + _STATUS.size : at + _RECORD_BYTES] for at in starts}


def _trim(directory: Path) -> None:
    """Removes what is too much of what contexts have left."""
    found = ((path, path.stat()) for path in directory.iterdir())
    for path in surplus((Kept(path, s.st_size, s.st_mtime_ns) for path, s in found), MAX_BYTES, time.time_ns()):
        path.unlink(missing_ok=True)
