"""Tables of medians with their range, and what they were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path


class Results:
    """What was measured, by row and column; said on standard error as it comes."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._values: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, column: str, value: float) -> None:
        """Notes one measurement."""
        self._values.setdefault(row, {}).setdefault(column, []).append(value)
        print(f"{column:30} {row:46} {_number(value):>9}", file=sys.stderr, flush=True)

    def table(self, title: str) -> str:
        """A Markdown table: the median and, in brackets, the range; rows in the order in which they came first."""
        lines = [f"| {title} | {' | '.join(self._columns)} |", f"|---|{'---|' * len(self._columns)}"]
        for row, found in self._values.items():
            lines.append(f"| {row} | {' | '.join(_cell(found.get(column, [])) for column in self._columns)} |")
        return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    median, least, most = (_number(value) for value in (statistics.median(values), min(values), max(values)))
    return median if least == most else f"{median} ({least}-{most})"


def _number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def machine() -> str:
    """The day and the machine, for the conditions of a measurement."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{datetime.date.today()}: {os.cpu_count()} CPUs ({_cpu_model()}), {memory_bytes / 1e9:.0f} GB of memory, "
        f"Linux {platform.release()}, Python {platform.python_version()}."
    )


def _cpu_model() -> str:
    """The processor as the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
