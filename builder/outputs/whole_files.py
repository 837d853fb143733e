"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from builder.errors import BuildError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes ``path`` when the block ends well, and is gone when it does not. Raises BuildError.

    A device or a pipe, such as /dev/stdout, is written to as it is.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as special:
                yield special
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as out:
            try:
                yield out.file
                out.flush()
                os.fchmod(out.fileno(), 0o644)
                Path(out.name).replace(path)
            except BaseException:
                Path(out.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[IO[bytes]]:
    """The same; None is standard output, which cannot be taken back. Raises BuildError."""
    if path is not None:
        with replacing(path) as out:
            yield out
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        raise BuildError(f"cannot write to standard output: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file of this text. Raises BuildError."""
    with replacing(path) as out:
        out.write(text.encode())
