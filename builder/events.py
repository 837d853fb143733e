"""What happens during a build, as values that ``builder.progress`` shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


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


@dataclass(frozen=True, slots=True)
class StepName:
    """A step as a person knows it: which stage, which of how many, and its text."""

    stage: str
    number: int
    total: int
    text: str

    def __str__(self) -> str:
        first_line = self.text.splitlines()[0] if self.text else ""
        shown = first_line if len(first_line) <= 100 else first_line[:97] + "..."
        return f"[{self.stage} {self.number}/{self.total}] {shown}"


@dataclass(frozen=True, slots=True)
class StepStarted:
    step: StepName


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Bytes that a RUN command wrote."""

    step: StepName
    data: bytes


@dataclass(frozen=True, slots=True)
class StepEnded:
    """``layer_bytes`` is the size of the compressed layer, None when the step made none."""

    step: StepName
    outcome: Outcome
    seconds: float = 0.0
    layer_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What a dry run says of a step: its key ("" for one that makes no layer), and what a build would make of it."""

    step: StepName
    key: str
    prospect: Prospect


@dataclass(frozen=True, slots=True)
class Missed:
    """Why the cache did not have a step."""

    step: StepName
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the build survives but its owner should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the build ends without what was asked for."""

    text: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image arrived at a destination."""

    destination: str
    digest: str
    uploaded_bytes: int
    uploaded_blobs: int
    reused_blobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Written:
    """An image or its digest was written to a path of this machine."""

    what: str
    path: str


Event = StepStarted | StepOutput | StepEnded | Planned | Missed | Note | Warned | Failed | Pushed | Written
Listener = Callable[[Event], None]
