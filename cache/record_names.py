"""What a record's name says: the inverse of the names that ``cache.paths`` gives out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cache import paths
from cache.oci.digest import Digest

REPOSITORIES = "repositories/"
LAYERS = "layers/"


class Kind(Enum):
    """What is known of a repository, as the names of records have it."""

    TAG = "_tags"
    MEMBER = "_members"
    REFERRERS = "_referrers"


@dataclass(frozen=True, slots=True)
class Named:
    """A record of a repository. ``rest`` is a tag, or ``algorithm/hex``."""

    namespace: str
    repository: str
    kind: Kind
    rest: str

    @property
    def place(self) -> str:
        """The repository as people call it: with its upstream's name before it unless it lives only here."""
        return self.repository if self.namespace == paths.HOSTED else f"{self.namespace}/{self.repository}"

    @property
    def digest(self) -> Digest | None:
        """Which manifest or blob it is about; None for a tag."""
        algorithm, _, hexadecimal = self.rest.partition("/")
        try:
            return Digest(algorithm, hexadecimal)
        except ValueError:
            return None


def parse(name: str) -> Named | None:
    """What the record of this name is about; None when it is no record of a repository."""
    namespace, _, path = name.removeprefix(REPOSITORIES).partition("/")
    repository, underscore, rest = path.partition("/_")
    kind, _, rest = rest.partition("/")
    if not name.startswith(REPOSITORIES) or not repository or not underscore or not rest:
        return None
    try:
        return Named(namespace, repository, Kind(f"_{kind}"), rest)
    except ValueError:
        return None


def prefixes(place: str) -> tuple[str, ...]:
    """The prefixes under which the records of all repositories at and below a place are; "" = everywhere."""
    if not place:
        return (REPOSITORIES,)
    return f"{REPOSITORIES}{place}/", f"{REPOSITORIES}{paths.HOSTED}/{place}/"


def damaged_digest(name: str) -> Digest | None:
    """Which blob a record of damage is about; None for other names. The inverse of ``paths.damaged``."""
    algorithm, _, hexadecimal = name.removeprefix(paths.DAMAGED).partition("/")
    try:
        digest = Digest(algorithm, hexadecimal)
    except ValueError:
        return None
    return digest if paths.damaged(digest) == name else None
