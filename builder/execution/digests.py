"""A digest of files to copy: framed, and with the contents of large ones read in several threads."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from builder.layer.changes import Entry
from cache.keys import CacheKey, KeyBuilder

READ_BYTES = 1 << 20
THREADS = 4
WORTH_A_THREAD_BYTES = 256 << 10
"""Hashing lets other threads run; of smaller files, threads would mostly wait for each other."""


def file_digest(path: str) -> bytes:
    """The SHA-256 of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.digest()


DigestFile = Callable[[str], bytes]


def entries_key(groups: Sequence[tuple[str, str, Sequence[Entry]]], digest_file: DigestFile = file_digest) -> CacheKey:
    """The key of what lands where: kind, name and entries of each group; modification times do not count.

    ``digest_file`` is called from several threads. Raises OSError when a file cannot be read.
    """
    files = [entry for _, _, entries in groups for entry in entries if entry.is_file]
    digests = _content_digests(files, digest_file)
    key = KeyBuilder("files")
    for kind, name, entries in groups:
        # The name of a directory does not land anywhere.
        key.items("source", (kind, "" if kind == "directory" else name, str(len(entries))))
        for entry in entries:
            _add_entry(key, entry)
            if entry.is_file:
                key.data("content", next(digests))
    return key.key()


def _add_entry(key: KeyBuilder, entry: Entry) -> None:
    key.text("path", entry.path)
    numbers = (entry.mode, entry.uid, entry.gid, *entry.device, int(entry.hardlink))
    key.text("status", " ".join(map(str, numbers)))
    if entry.hardlink or stat.S_ISLNK(entry.mode):
        key.text("link", entry.link)
    for name, value in sorted(entry.xattrs.items()):
        key.text("xattr", name).data("value", value)


def _content_digests(files: Sequence[Entry], digest_file: DigestFile) -> Iterator[bytes]:
    """The digest of each file's content, in order."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        paths = [str(file.content) for file in files]
        large = [file.size_bytes >= WORTH_A_THREAD_BYTES for file in files]
        begun = [
            pool.submit(digest_file, path) if is_large else None for path, is_large in zip(paths, large, strict=True)
        ]
        for path, digest in zip(paths, begun, strict=True):
            yield digest_file(path) if digest is None else digest.result()
