"""Hosted prefixes that read from a wider one what they do not have themselves (pure).

A cache key is a claim, and who may write under a prefix is trusted by all who read it. So the builds of pull requests
write under a prefix of their own and may use what the main branch's builds have made, never the other way: what others
read from must not read from anything itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cache.oci.reference import check_repository

_EXAMPLE = "expected NARROW WIDE, for example 'cache/pr-* cache/main'"


@dataclass(frozen=True, slots=True)
class FallThrough:
    """Repositories under ``narrow``, whose last component may end in ``*``, read from those under ``wide`` too."""

    narrow: str
    wide: str

    @classmethod
    def parse(cls, text: str) -> FallThrough:
        """Written as ``NARROW WIDE``. Raises ValueError."""
        parts = [part.strip("/") for part in text.split()]
        if len(parts) != 2:
            raise ValueError(f"{text!r}: {_EXAMPLE}")
        try:
            check_repository(parts[0].removesuffix("*") + "x" if parts[0].endswith("*") else parts[0])
            check_repository(parts[1])
        except ValueError as error:
            raise ValueError(f"{text!r}: {_EXAMPLE}: {error}") from error
        return cls(*parts)

    def wider(self, repository: str) -> str | None:
        """Where ``repository`` reads on; None when it is not under the narrow prefix."""
        found = self._pattern().match(f"{repository}/")
        return f"{self.wide}/{repository[found.end() :]}".rstrip("/") if found else None

    def covers(self, repository: str) -> bool:
        """Whether the repository is under the narrow prefix."""
        return self._pattern().match(f"{repository}/") is not None

    def _pattern(self) -> re.Pattern[str]:
        if self.narrow.endswith("*"):
            return re.compile(re.escape(self.narrow[:-1]) + "[^/]*/")
        return re.compile(re.escape(self.narrow) + "/")


def wider(rules: Iterable[FallThrough], repository: str) -> str | None:
    """Where a repository reads on, by the first rule that covers it; None = nowhere."""
    return next((wide for rule in rules if (wide := rule.wider(repository)) is not None), None)


def fall_through_problems(rules: Iterable[FallThrough], hosted: Iterable[str]) -> Iterator[str]:
    """What is wrong with rules that are right each for itself."""
    rules, hosted = tuple(rules), tuple(hosted)
    for rule in rules:
        told = f"fall-through '{rule.narrow} {rule.wide}'"
        for place in (rule.narrow, rule.wide):
            if not any(f"{place}/".startswith(f"{prefix}/") for prefix in hosted):
                yield f"{told}: {place} is not hosted here: expected a prefix under {', '.join(hosted) or 'hosted'}"
        if any(other.covers(rule.wide) or f"{other.narrow}/".startswith(f"{rule.wide}/") for other in rules):
            yield f"{told}: {rule.wide} reads from elsewhere itself, or holds what does: expected one that does not"
