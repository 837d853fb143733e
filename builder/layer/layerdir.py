"""Puts a layer's changes into a directory, never outside it: every path is resolved as a process chrooted there would.

A directory on the way that is a symlink is followed inside the directory; in a layer's own overlay directory also
through the layers below, so that ``lib/x`` over a lower ``lib -> usr/lib`` lands in ``usr/lib``. Directories that a
layer needs but does not list are made: like those below where there are any, else 0755 root.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from builder.errors import BuildError
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.entries import OPAQUE_XATTR, OWNER_XATTR, has_one_id, is_opaque, is_whiteout, read_entry
from builder.layer.links import follow, join
from builder.layer.rootfs import Tree
from builder.sandbox.ids import give

COPY_BYTES = 1 << 20
_MADE_MODE = stat.S_IFDIR | 0o755
_REFUSED = {errno.EPERM, errno.ENOTSUP}


class Readable(Protocol):
    """A file's content: ``read`` gives nothing at its end."""

    def read(self, size: int, /) -> bytes: ...


def no_tree() -> Tree:
    """A tree with nothing in it."""
    return Tree([])


class LayerDirectory:
    """The directory that one layer is put into.

    With ``overlay`` it is this layer's own, empty at first, and gets whiteouts and opaque marks in overlayfs' form;
    ``lower`` gives the tree of the layers below, when that is needed. Without, the layer is applied to what is there.

    ``owners`` False leaves all files to the user that the builder runs as.

    ``skipped`` says what could not be made here, with the reason; ``implied`` which directories no entry was for;
    ``lists_root`` whether there was an entry for the root itself.
    """

    def __init__(
        self, directory: Path, *, overlay: bool = False, lower: Callable[[], Tree] = no_tree, owners: bool = True
    ) -> None:
        self._root = os.fspath(directory)
        self._overlay = overlay
        self._get_lower = lower
        self._lower_tree: Tree | None = None
        self._parents = {"": ""}  # directories as entries name them → as they are here
        self._touched: set[str] = set()  # what this layer has put here, and the directories above
        self._times: dict[str, int] = {}  # of directories: set last, as every child changes them
        self._owners = owners and os.geteuid() == 0
        self.skipped: list[str] = []
        self.implied: set[str] = set()
        self.lists_root = False

    def apply(self, change: Change, content: Readable | None = None) -> None:
        """Makes one change; ``content`` has a regular file's bytes. Raises OSError, or BuildError for a bad change."""
        match change:
            case Entry(path=""):
                self.lists_root = True
                self._metadata("", change)
            case Entry():
                self._put(self._locate(change.path), change, content)
            case Whiteout():
                self._whiteout(change.path)
            case Opaque():
                self._opaque(change.path)

    def finish(self) -> None:
        """Sets what must come last: the root's metadata where no entry gave it, and the times of directories."""
        root = self._lower.lstat("")
        if self._overlay and "" not in self._times:
            like = read_entry("", root, os.fspath(self._lower.real_path(""))) if root else Entry("", _MADE_MODE)
            self._metadata("", like)
        for path, mtime_ns in self._times.items():
            os.utime(self._on_disk(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    @property
    def _lower(self) -> Tree:
        if self._lower_tree is None:  # not a cached_property: Python 3.11 locks it for all instances at once
            self._lower_tree = self._get_lower()
        return self._lower_tree

    def _on_disk(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _status(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self._on_disk(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    # Where a path is

    def _locate(self, path: str) -> str:
        """The place of ``path``, in a directory that now exists; what is there itself is not followed."""
        parent, _, name = path.rpartition("/")
        known = self._parents.get(parent)
        return join(self._make_parents(parent) if known is None else known, name)

    def _resolve(self, path: str) -> str:
        return follow(path, self._link_at)

    def _make_parents(self, path: str) -> str:
        resolved = self._resolve(path)
        parts = resolved.split("/")
        for length in range(1, len(parts) + 1):
            self._ensure_directory("/".join(parts[:length]))
        self._parents[path] = resolved
        return resolved

    def _ensure_directory(self, path: str) -> None:
        self._touched.add(path)
        status = self._status(path)
        if status is None:
            below = self._below(path)
            os.mkdir(self._on_disk(path), 0o700)
            like = Entry(path, _MADE_MODE)
            if below and stat.S_ISDIR(below.st_mode):
                like = read_entry(path, below, os.fspath(self._lower.real_path(path)))
            self._metadata(path, like)
            self.implied.add(path)
        elif self._overlay and is_whiteout(status):
            self._remove(path)
            os.mkdir(self._on_disk(path), 0o700)
            self._metadata(path, Entry(path, _MADE_MODE))
            self._mark_opaque(path)
        elif not stat.S_ISDIR(status.st_mode):
            raise BuildError(f"{path!r} is not a directory, but the layer has files in it")

    def _link_at(self, path: str) -> str | None:
        status = self._status(path)
        if status is not None:
            return os.readlink(self._on_disk(path)) if stat.S_ISLNK(status.st_mode) else None
        below = self._below(path)
        return self._lower.readlink(path) if below and stat.S_ISLNK(below.st_mode) else None

    def _below(self, path: str) -> os.stat_result | None:
        """What the lower layers show at ``path``, where this layer so far has nothing that hides it."""
        below = self._lower.lstat(path)
        if below is None:
            return None
        parts = path.split("/")
        for length in range(1, len(parts)):
            above = "/".join(parts[:length])
            status = self._status(above)
            if status is None:
                break
            if not stat.S_ISDIR(status.st_mode) or is_opaque(self._on_disk(above)):
                return None
        return below

    # Entries

    def _put(self, path: str, entry: Entry, content: Readable | None) -> None:
        if entry.is_directory:
            self._directory(path, entry)
        else:
            self._create(path, lambda: self._make(path, entry, content))
        self._touched.add(path)

    def _directory(self, path: str, entry: Entry) -> None:
        status = self._status(path)
        if status is None or not stat.S_ISDIR(status.st_mode):
            hidden = status is not None and self._overlay and is_whiteout(status)
            if status is not None:
                self._remove(path)
            os.mkdir(self._on_disk(path), 0o700)
            if hidden:
                self._mark_opaque(path)
        self._metadata(path, entry)
        self.implied.discard(path)

    def _create(self, path: str, make: Callable[[], None]) -> None:
        """Makes a file that must be new; what is in its way is removed only then, for most names are free."""
        try:
            make()
        except FileExistsError:
            self._remove(path)
            make()

    def _make(self, path: str, entry: Entry, content: Readable | None) -> None:
        on_disk = self._on_disk(path)
        kind = stat.S_IFMT(entry.mode)
        if entry.hardlink:
            os.link(self._link_source(entry), on_disk, follow_symlinks=False)
        elif kind == stat.S_IFREG:
            self._make_file(on_disk, entry, content)
        elif kind == stat.S_IFLNK:
            os.symlink(entry.link, on_disk)
            self._finish_special(on_disk, entry)
        elif kind == stat.S_IFIFO:
            os.mkfifo(on_disk, 0o600)
            self._finish_special(on_disk, entry)
        else:
            self._make_device(on_disk, entry)

    def _make_file(self, on_disk: str, entry: Entry, content: Readable | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(on_disk, flags, 0o600)
        try:
            while content is not None and (data := content.read(COPY_BYTES)):
                _write_all(file, data)
            self._own(file, entry)
            os.fchmod(file, stat.S_IMODE(entry.mode))
            self._set_xattrs(on_disk, entry)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(file)

    def _make_device(self, on_disk: str, entry: Entry) -> None:
        if self._overlay and stat.S_ISCHR(entry.mode) and entry.device == (0, 0):
            self.skipped.append(f"{entry.path}: a character device 0:0 would be read as a deleted file")
            return
        try:
            os.mknod(on_disk, stat.S_IFMT(entry.mode) | 0o600, os.makedev(*entry.device))
        except PermissionError as error:
            self.skipped.append(f"{entry.path}: device node {entry.device[0]}:{entry.device[1]}: {error.strerror}")
            return
        self._finish_special(on_disk, entry)

    def _finish_special(self, on_disk: str, entry: Entry) -> None:
        self._own(on_disk, entry)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(on_disk, stat.S_IMODE(entry.mode))
        self._set_xattrs(on_disk, entry)
        os.utime(on_disk, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _metadata(self, path: str, entry: Entry) -> None:
        """Gives a directory its owner, mode and attributes now and its time at the end."""
        on_disk = self._on_disk(path)
        self._own(on_disk, entry)
        os.chmod(on_disk, stat.S_IMODE(entry.mode))
        self._set_xattrs(on_disk, entry)
        self._times[path] = entry.mtime_ns

    def _own(self, file: str | int, entry: Entry) -> None:
        """Gives a file, named by path or descriptor, to its owner in the image; for want of ids a note must do.

        Links and special files cannot hold one; a directory may hold that of a layer below.
        """
        if not self._owners:
            return
        follow = isinstance(file, int)
        owner = (entry.uid, entry.gid)
        if not has_one_id():
            give(file, *owner, follow_symlinks=follow)
        elif entry.is_directory or (entry.is_file and owner != (0, 0)):
            os.setxattr(file, OWNER_XATTR, b"%d:%d" % owner, follow_symlinks=follow)
        elif owner != (0, 0):
            self.skipped.append(f"{entry.path}: its owner {entry.uid}:{entry.gid}: there is but one user here")

    def _set_xattrs(self, on_disk: str, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            try:
                os.setxattr(on_disk, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self.skipped.append(f"{entry.path}: attribute {name}: {error.strerror}")

    def _link_source(self, entry: Entry) -> str:
        """The file that a hard link is another name of; one of a lower layer is copied up first, as overlayfs does."""
        parent, _, name = entry.link.rpartition("/")
        path = join(self._resolve(parent), name)
        if self._status(path) is None:
            below = self._below(path)
            if below is None or not stat.S_ISREG(below.st_mode):
                raise BuildError(f"{entry.path!r} is a hard link to {entry.link!r}, which is not there")
            source = os.fspath(self._lower.real_path(path))
            path = self._locate(path)
            with open(source, "rb") as content:
                self._put(path, read_entry(path, below, source), content)
        return self._on_disk(path)

    # What goes

    def _remove(self, path: str) -> None:
        """Removes what is at ``path`` and forgets what was known of it and of paths that led through it."""
        on_disk = self._on_disk(path)
        if stat.S_ISDIR(os.lstat(on_disk).st_mode):
            shutil.rmtree(on_disk)
            inside = path + "/"
            self._times = {p: t for p, t in self._times.items() if p != path and not p.startswith(inside)}
            self._touched = {p for p in self._touched if p != path and not p.startswith(inside)}
        else:
            os.unlink(on_disk)
        self._parents = {"": ""}

    def _whiteout(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        resolved = self._resolve(parent)
        status = self._status(resolved)
        if not self._overlay:
            if status and stat.S_ISDIR(status.st_mode):
                self._remove_lower(join(resolved, name))
        elif (status and stat.S_ISDIR(status.st_mode)) or self._below(resolved):
            self._write_whiteout(self._locate(path))

    def _write_whiteout(self, path: str) -> None:
        """Hides what lower layers have at ``path``; an entry of this very layer stays, whatever their order."""
        status = self._status(path)
        if status is None:
            os.mknod(self._on_disk(path), stat.S_IFCHR, os.makedev(0, 0))
        elif stat.S_ISDIR(status.st_mode):
            self._mark_opaque(path)

    def _opaque(self, path: str) -> None:
        directory = self._parents.get(path)
        if directory is None:
            directory = self._make_parents(path)
        if not self._overlay:
            self._remove_below(directory)
        elif directory:
            self._mark_opaque(directory)
        else:  # overlayfs always merges the roots
            for name in self._lower.listdir(""):
                self._write_whiteout(name)

    def _mark_opaque(self, path: str) -> None:
        os.setxattr(self._on_disk(path), OPAQUE_XATTR, b"y", follow_symlinks=False)

    def _remove_lower(self, path: str) -> None:
        """Applied in place: removes what earlier layers have at ``path`` and below, and keeps what this one has."""
        status = self._status(path)
        if status is None:
            return
        if path not in self._touched:
            self._remove(path)
        elif stat.S_ISDIR(status.st_mode):
            self._remove_below(path)

    def _remove_below(self, path: str) -> None:
        for name in os.listdir(self._on_disk(path)):
            self._remove_lower(join(path, name))


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        data = data[written:]
        written = os.write(file, data)
