"""What a command costs: time, processor, memory and bytes on the loopback, with all the processes that work for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_S = 0.02
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Used:
    """``peak_bytes`` is the most that all processes had resident at once, sampled; shared pages count for each."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    wire_bytes: int
    requests: int


@dataclass
class Meter:
    """Measures commands and, with them, the daemons that do their work (these processes and all below them).

    ``count_requests`` says how many requests have come so far to the server that the commands talk to.
    """

    count_requests: Callable[[], int]
    daemons: Sequence[int] = ()
    _peak_bytes: int = 0
    _running: set[int] = field(default_factory=set)

    def run(self, work: Callable[[Meter], None]) -> Used:
        """What ``work`` costs, which starts its commands by :meth:`command`."""
        self._peak_bytes = 0
        before_requests = self.count_requests()
        before_cpu_s, before_wire_bytes = self._cpu_s(), _loopback_bytes()
        with self._sampling():
            started = time.perf_counter()
            work(self)
            wall_s = time.perf_counter() - started
        cpu_s, wire_bytes = self._cpu_s() - before_cpu_s, _loopback_bytes() - before_wire_bytes
        return Used(wall_s, cpu_s, self._peak_bytes, wire_bytes, self.count_requests() - before_requests)

    def command(self, *command: str) -> None:
        """Runs one. Raises subprocess.CalledProcessError; says what it had said then."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._running.add(process.pid)
        try:
            output, _ = process.communicate()
        finally:
            self._running.discard(process.pid)
        if process.returncode:
            print(output.decode(errors="replace")[-4000:])
            raise subprocess.CalledProcessError(process.returncode, command)

    def _cpu_s(self) -> float:
        """Of our children that have ended, and of the daemons."""
        times = os.times()
        used_s = times.children_user + times.children_system
        return used_s + sum(_cpu_s(pid) for daemon in self.daemons for pid in _family(daemon))

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        over = threading.Event()

        def sample() -> None:
            while not over.wait(SAMPLE_S):
                pids = [pid for root in (*self.daemons, *list(self._running)) for pid in _family(root)]
                self._peak_bytes = max(self._peak_bytes, sum(map(_resident_bytes, pids)))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield
        finally:
            over.set()
            sampler.join()


def _family(pid: int) -> list[int]:
    """A process and all below it that there are now."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        with contextlib.suppress(OSError):  # it has ended
            for thread in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_S


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _loopback_bytes() -> int:
    """All that was ever sent over the loopback: every server of the bench is there."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (fields,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("lo:"))
    return int(fields[0])
