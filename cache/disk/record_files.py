"""Records as files, under compare-and-swap between threads and between processes.

Files are replaced whole, so readers need no lock; writers of a record hold a lock on one of 256 lock files, which the
kernel gives back when a process dies.

Everything here blocks, and lets ``OSError`` through to the store that uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cache import paths, record_format
from cache.disk import durable
from cache.errors import DamagedRecord, RecordConflict
from cache.store import ABSENT, Absent, Record


class RecordFiles:
    """The records below a store's root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> Record | None:
        """The record, or None when there is none."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None
        return record_format.decode(name, content)

    def put(self, name: str, value: bytes, expected: str | Absent | None) -> str:
        """Writes the record and returns its new version. Raises RecordConflict."""
        version = secrets.token_hex(record_format.VERSION_BYTES)
        with self._locked(name):
            if expected is not None:
                self._expect(name, expected)
            temporary = durable.new_file(self._root / paths.TEMPORARY)
            durable.replace_content(temporary, self._path(name), record_format.encode(version, value))
        return version

    def remove(self, name: str, expected: str | None) -> None:
        """Removes the record if it is there. Raises RecordConflict."""
        path = self._path(name)
        with self._locked(name):
            found = self.get(name) if expected is not None else None
            if found is not None and found.version != expected:
                raise RecordConflict(name)
            try:
                path.unlink()
            except FileNotFoundError:
                return
            durable.sync_directory(path.parent)

    def get_all(self, names: Sequence[str]) -> list[Record | DamagedRecord | None]:
        """For each name the record, None when there is none, or what is wrong with it."""
        return [self._get_or_damage(name) for name in names]

    def _get_or_damage(self, name: str) -> Record | DamagedRecord | None:
        try:
            return self.get(name)
        except DamagedRecord as error:
            return error

    def remove_all(self, names: Iterable[str]) -> None:
        """Removes these records, whatever they are; those that are there."""
        changed: set[Path] = set()
        for name in names:
            path = self._path(name)
            with self._locked(name):
                try:
                    path.unlink()
                except FileNotFoundError:
                    continue
            changed.add(path.parent)
        for directory in changed:
            durable.sync_directory(directory)

    def under(self, prefix: str) -> Iterator[str]:
        """The names of all records under ``prefix``; directories are read as they are gone through."""
        pending = [prefix]
        while pending:
            prefix = pending.pop()
            try:
                with os.scandir(self._path(prefix[:-1])) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{prefix}{entry.name}/")
                        else:
                            yield prefix + entry.name
            except FileNotFoundError:
                continue

    def _expect(self, name: str, expected: str | Absent) -> None:
        found = self.get(name)
        version = ABSENT if found is None else found.version
        if version != expected:
            raise RecordConflict(name)

    def _path(self, name: str) -> Path:
        return self._root / paths.record(paths.check_record_name(name))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        shard = hashlib.sha256(name.encode()).hexdigest()[:2]
        path = self._root / paths.lock(shard)
        durable.make_directory(path.parent)
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
