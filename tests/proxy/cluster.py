"""Several replicas as processes of their own, over one store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import free_port
from tests.programs import proxy_command, start_program


@dataclass(frozen=True)
class Replica:
    """One of several processes."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def lines(self, event: str) -> list[dict[str, object]]:
        """What it has logged of an event."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


@contextmanager
def replicas(tmp: Path, count: int, *options: str) -> Iterator[list[Replica]]:
    """So many replicas over one store of files."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            port = free_port()
            url, log = f"http://127.0.0.1:{port}", tmp / f"{number}.log"
            command = proxy_command(tmp, port, f"--replica-url={url}", "--log-format=json", "--drain=0s", *options)
            started.append(Replica(url, log, stack.enter_context(start_program(command, port, log))))
        yield started
