"""What a record's name says: the inverse of the names that ``cache.paths`` gives out."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cache import paths
from cache.oci.digest import HEX_LENGTHS, Digest

REPOSITORIES = "repositories/"
LAYERS = "layers/"


class Kind(Enum):
    """What is known of a repository, as the names of records have it."""

    TAG = "_tags"
    MEMBER = "_members"
    REFERRERS = "_referrers"


_KINDS = {kind.value.removeprefix("_"): kind for kind in Kind}


class Named(NamedTuple):
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
    def packed(self) -> bytes | None:
        """The bytes of that digest; None for a tag."""
        algorithm, _, hexadecimal = self.rest.partition("/")
        try:
            return bytes.fromhex(hexadecimal) if HEX_LENGTHS.get(algorithm) == len(hexadecimal) else None
        except ValueError:
            return None

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
    repository, _, rest = path.partition("/_")
    word, _, rest = rest.partition("/")
    kind = _KINDS.get(word)
    if not name.startswith(REPOSITORIES) or not repository or not rest or kind is None:
        return None
    return Named(namespace, repository, kind, rest)


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
