"""Numbers as people read and write them."""

from __future__ import annotations

import re

_TIMES = (("d", 86400), ("h", 3600), ("min", 60))
_TIME = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>ms|s|m|h|d)?")
_UNIT_S = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)(?P<unit>[MGT]i?B)?")
_UNIT_BYTES = {None: 1, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def told_bytes(size_bytes: int) -> str:
    """A size in the decimal unit that fits: ``512 B``, ``31.2 MB``."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.95 or unit == "TB":
            break
        size /= 1000
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


def told_seconds(seconds: float) -> str:
    """A length of time in whole units, the greatest of which there are two: ``90 s``, ``3 h``, ``14 d``."""
    for unit, unit_s in _TIMES:
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def parse_seconds(text: str) -> float:
    """Seconds from ``90``, ``1.5s``, ``10m``, ``12h`` or ``7d``. Raises ValueError."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time: expected a number and ms, s, m, h or d, for example 90s")
    return float(match["number"]) * _UNIT_S[match["unit"]]


def parse_bytes(text: str) -> int:
    """Bytes from ``500000``, ``500MB``, ``50GB``, ``1TB`` or, in powers of 1024, ``50GiB``. Raises ValueError."""
    match = _BYTES.fullmatch(text.strip())
    if match is None or not (size_bytes := int(float(match["number"]) * _UNIT_BYTES[match["unit"]])):
        raise ValueError(f"{text!r} is not a size: expected a number and MB, GB, TB, MiB, GiB or TiB, for example 50GB")
    return size_bytes
