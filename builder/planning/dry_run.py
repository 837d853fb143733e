"""What a build would do, told without doing it (pure)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from builder.events import Planned, Prospect
from builder.planning.graph import KeyedStage, needed_stages
from cache.keys import CacheKey


def prospects(stages: Mapping[int, KeyedStage], target: int, found: Container[CacheKey]) -> Iterator[Planned]:
    """Every step of the plan, in building order, with its key and what becomes of it."""
    needed = set(needed_stages(stages, target, found))
    for index, keyed in stages.items():
        for step, key in keyed.keyed_steps():
            yield Planned(step.name, key.hex if key else "", _prospect(key, found, used=index in needed))


def _prospect(key: CacheKey | None, found: Container[CacheKey], *, used: bool) -> Prospect:
    if not used:
        return Prospect.UNUSED
    if key is None:
        return Prospect.METADATA
    return Prospect.HIT if key in found else Prospect.MISS
