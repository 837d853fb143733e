"""Damaged blobs as files, out of everybody's way.

Everything here blocks, and lets ``OSError`` through to the store that uses it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cache import paths
from cache.disk import durable
from cache.disk.blob_files import version_of
from cache.oci.digest import Digest
from cache.store import Aside


class QuarantineFiles:
    """What was put aside below a store's root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def take(self, digest: Digest, version: str) -> Aside:
        """Moves the blob here if its file still is that version.

        A writer may put a good file in its place between the look and the move. It is seen by what has come here, and
        gets its name back.
        """
        blob, aside = self._root / paths.blob(digest), self._root / paths.quarantined(digest)
        try:
            if version_of(blob.stat()) != version:
                return Aside.CHANGED
            durable.make_directory(aside.parent)
            os.replace(blob, aside)
        except FileNotFoundError:
            return Aside.CHANGED
        if version_of(aside.stat()) != version:
            with contextlib.suppress(FileExistsError):
                os.link(aside, blob)
            aside.unlink()
            return Aside.CHANGED
        durable.sync_directory(aside.parent)
        durable.sync_directory(blob.parent)
        return Aside.KEPT

    def remove(self, digest: Digest) -> None:
        """Removes what is here of the blob."""
        (self._root / paths.quarantined(digest)).unlink(missing_ok=True)
