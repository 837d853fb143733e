"""What happens during a build, as values that ``builder.progress`` shows."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec


class Outcome(Enum):
    """How a step ended."""

    CACHED = "CACHED"
    DONE = "DONE"
    UNUSED = "UNUSED"
    """Nothing needed the step's result: what depends on it was cached."""


class Prospect(Enum):
    """What a build would do with a step."""

    HIT = "in the cache"
    MISS = "to be built"
    METADATA = "no layer"
    UNUSED = "not needed"


class StepName(msgspec.Struct, frozen=True):
    """A step as a person knows it: which stage, which of how many, and its text."""

    stage: str
    number: int
    total: int
    text: str

    def __str__(self) -> str:
        first_line = self.text.splitlines()[0] if self.text else ""
        shown = first_line if len(first_line) <= 100 else first_line[:97] + "..."
        return f"[{self.stage} {self.number}/{self.total}] {shown}"


class StepStarted(msgspec.Struct, frozen=True):
    step: StepName


class StepOutput(msgspec.Struct, frozen=True):
    """Bytes that a RUN command wrote."""

    step: StepName
    data: bytes


class StepEnded(msgspec.Struct, frozen=True):
    """``layer_bytes`` is the size of the compressed layer, None when the step made none."""

    step: StepName
    outcome: Outcome
    seconds: float = 0.0
    layer_bytes: int | None = None


class Planned(msgspec.Struct, frozen=True):
    """What a dry run says of a step: its key ("" for one that makes no layer), and what a build would make of it."""

    step: StepName
    key: str
    prospect: Prospect


class Missed(msgspec.Struct, frozen=True):
    """Why the cache did not have a step."""

    step: StepName
    why: str


class Note(msgspec.Struct, frozen=True):
    """Something worth a line."""

    text: str


class Warned(msgspec.Struct, frozen=True):
    """Something that the build survives but its owner should know."""

    text: str


class Failed(msgspec.Struct, frozen=True):
    """Why the build ends without what was asked for."""

    text: str


class Pushed(msgspec.Struct, frozen=True):
    """An image arrived at a destination."""

    destination: str
    digest: str
    uploaded_bytes: int
    uploaded_blobs: int
    reused_blobs: int
    seconds: float


class Written(msgspec.Struct, frozen=True):
    """An image or its digest was written to a path of this machine."""

    what: str
    path: str


Event = StepStarted | StepOutput | StepEnded | Planned | Missed | Note | Warned | Failed | Pushed | Written
Listener = Callable[[Event], None]
