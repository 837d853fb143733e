"""What may stand before a registry: it lets requests pass or refuses them, and hears what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class Passage(Protocol):
    """One request that was let pass."""

    def replied(self, status: int, headers: Mapping[str, str]) -> None:
        """Notes the head of the reply."""


class Gate(Protocol):
    """Before one registry, for one identity."""

    @property
    def shut(self) -> bool:
        """True when trying again at once is of no use to whoever asks."""

    def enter(self, method: str, path: str) -> AbstractContextManager[Passage]:
        """Lets a request pass; the context lasts until its reply's head is here, or hears why none comes.

        Raises RegistryError when the registry is not to be asked now.
        """


class OpenGate:
    """Lets everything pass."""

    shut = False

    def enter(self, method: str, path: str) -> OpenGate:
        return self

    def __enter__(self) -> OpenGate:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def replied(self, status: int, headers: Mapping[str, str]) -> None:
        pass
