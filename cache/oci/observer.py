"""What may be watched of the requests to registries: who measures gives an ``Observer``, who asks tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """Is told of every request to a registry. ``registry`` is the name that the session was given, never a URL."""

    def answered(self, registry: str, status: int | None, seconds: float, headers: Mapping[str, str]) -> None:
        """A reply's headers came after so many seconds; ``status`` None = no reply came."""

    def received(self, registry: str, size_bytes: int) -> None:
        """A reply's body has been read, or given up, after so many bytes."""

    def token_fetched(self, registry: str) -> None:
        """A token server of the registry was asked for a token."""


class Unobserved:
    """Nobody watches."""

    def answered(self, registry: str, status: int | None, seconds: float, headers: Mapping[str, str]) -> None:
        pass

    def received(self, registry: str, size_bytes: int) -> None:
        pass

    def token_fetched(self, registry: str) -> None:
        pass


UNOBSERVED = Unobserved()
