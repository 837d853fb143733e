"""Following symbolic links inside a root, as a process chrooted there would: pure, the caller says what is a link."""

from __future__ import annotations

import errno
from collections.abc import Callable

MOST_LINKS = 40
"""How many links one path may go through; the kernel's own limit."""


def join(directory: str, name: str) -> str:
    """``name`` in ``directory``, both relative to the root."""
    if directory and name:
        return f"{directory}/{name}"
    return directory or name


def clean(path: str) -> str:
    """``path`` as relative to the root, without ``.``, ``..`` and empty parts; ``..`` never leaves the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def follow(path: str, link_at: Callable[[str], str | None], *, follow_last: bool = True) -> str:
    """``path`` with every link replaced by what it points to, absolute links being relative to the root.

    ``link_at`` gives the text of the link at a path whose parents hold no links, or None when there is none (another
    kind of file, or nothing at all). Raises OSError (ELOOP) after ``MOST_LINKS`` links.
    """
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in {"", "."}]
    followed = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        done.append(part)
        text = link_at("/".join(done)) if todo or follow_last else None
        if text is None:
            continue
        followed += 1
        if followed > MOST_LINKS:
            raise OSError(errno.ELOOP, "too many levels of symbolic links", path)
        done = [] if text.startswith("/") else done[:-1]
        todo += [part for part in reversed(text.split("/")) if part not in {"", "."}]
    return "/".join(done)


def sort_key(path: str) -> tuple[bytes, ...]:
    """Orders paths so that parents come first and siblings stand in the order of their bytes."""
    return tuple(part.encode("utf-8", "surrogateescape") for part in path.split("/"))
