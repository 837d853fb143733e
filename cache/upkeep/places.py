"""The repositories of a store, numbered, with the retention that covers each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cache import paths
from cache.record_names import Named
from cache.upkeep.digests import unpack
from cache.upkeep.retention import Retention, retention_of


@dataclass(frozen=True, slots=True)
class Place:
    """A repository by its number. ``salt`` is random: it makes one mark of a blob and the repository that it is in."""

    number: int
    namespace: str
    repository: str
    retention: Retention | None
    salt: int

    def member(self, packed: bytes) -> str:
        """The name of the record that says that the repository has what has this digest."""
        return paths.member(self.namespace, self.repository, unpack(packed))


class Places:
    """All repositories of which a record was seen."""

    def __init__(self, retentions: Sequence[Retention]) -> None:
        self._retentions = retentions
        self._by_name: dict[tuple[str, str], Place] = {}
        self._by_number: list[Place] = []

    def of(self, named: Named) -> Place:
        """The repository that a record is of."""
        key = (named.namespace, named.repository)
        found = self._by_name.get(key)
        if found is None:
            retention = retention_of(self._retentions, named.place)
            found = Place(len(self._by_number), *key, retention, secrets.randbits(64))
            self._by_name[key] = found
            self._by_number.append(found)
        return found

    def __getitem__(self, number: int) -> Place:
        return self._by_number[number]
