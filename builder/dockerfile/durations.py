"""Lengths of time as Go writes them, ``1m30s`` and the like: what HEALTHCHECK's flags take and an image's history says.

Numbers are nanoseconds.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_LONGEST_NS = 2**63 - 1


def parse_duration(text: str) -> int:
    """The nanoseconds of ``1h30m``, ``1.5s``, ``-2ms`` or ``0``. Raises ValueError."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if digits == "0":
        return 0
    total = Fraction(0)
    position = 0
    while match := _PART.match(digits, position):
        total += Fraction(match[1].rstrip(".")) * _UNITS_NS[match[2]]
        position = match.end()
    if position < len(digits) or not digits:
        raise ValueError(f"{text!r} is not a duration: expected numbers with units, such as 30s, 1m30s or 500ms")
    if total > _LONGEST_NS:
        raise ValueError(f"the duration {text!r} is too long")
    return sign * int(total)


def format_duration(nanoseconds: int) -> str:
    """As Go prints it: ``1m30s``, ``1.5s``, ``20ms``, ``0s``. Not for negative ones."""
    if nanoseconds < _UNITS_NS["s"]:
        unit = next((unit for unit in ("ms", "\u00b5s", "ns") if nanoseconds >= _UNITS_NS[unit]), "s")
        return _decimal(nanoseconds, _UNITS_NS[unit]) + unit
    minutes, rest_ns = divmod(nanoseconds, _UNITS_NS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest_ns, _UNITS_NS["s"]) + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
