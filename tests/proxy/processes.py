"""``crossdock proxy`` as a process of its own: its URL, its log, its end."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, str(ROOT / "crossdock.py"), "proxy"]
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Process:
    """A proxy of its own process."""

    popen: subprocess.Popen[str]
    url: str
    log: Path

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far, or those lines with this event."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if event is None or line["event"] == event]

    async def logged(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """The lines with this event, as soon as there are so many."""
        await until(lambda: len(self.lines(event)) >= count, f"{count} x {event} in {self.log.read_text()}")
        return self.lines(event)

    async def ended(self) -> int:
        """Its exit status, as soon as there is one."""
        await until(lambda: self.popen.poll() is not None, "the proxy ends")
        return self.popen.returncode


@contextmanager
def started(tmp: Path, *options: str) -> Iterator[Process]:
    """A proxy on a free port; its store and log are under ``tmp``."""
    command = [*COMMAND, "--listen", "127.0.0.1:0", "--store", f"file://{tmp}/store", *options]
    log = tmp / "proxy.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.match(r"Crossdock proxy listening on (https?://127\.0\.0\.1:\d+) ", line)
        assert match, line + log.read_text()
        yield Process(process, match[1], log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def until(true: Callable[[], bool], what: str) -> None:
    """Returns as soon as it is true. Raises TimeoutError when it never becomes so."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never: {what}")
        await asyncio.sleep(0.02)
