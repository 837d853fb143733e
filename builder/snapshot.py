"""What a RUN changed: from the upper directory of its overlay, or by comparing two walks of its root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.changes import Change
from builder.rootfs import Tree


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The status of everything in a tree: by directory, then by name."""

    directories: Mapping[str, Mapping[str, bytes]]


def overlay_changes(upper: Path, lower: Tree, ignore: frozenset[str] = frozenset()) -> list[Change]:
    """What the upper directory changes over ``lower``, parents first; nothing at or below ``ignore`` (relative paths)."""
    raise NotImplementedError


def fingerprint(root: Path, ignore: frozenset[str] = frozenset()) -> Fingerprint:
    """The state of ``root`` now, to be compared by :func:`walk_changes`; reads no contents."""
    raise NotImplementedError


def walk_changes(root: Path, before: Fingerprint, ignore: frozenset[str] = frozenset()) -> list[Change]:
    """What has changed below ``root`` since ``before``, parents first."""
    raise NotImplementedError
