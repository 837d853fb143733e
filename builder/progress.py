"""Events → what a person reads: plain lines, and on a terminal colour with the running step below them; or JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, TextIO, assert_never

import msgspec

from builder import events
from builder.events import Event, Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

_PREFIXES = {events.Note: "", events.Warned: "warning: ", events.Failed: "error: "}
_UNITS = ("B", "kB", "MB", "GB", "TB")


def readable_bytes(count: float) -> str:
    """``1234567`` → ``1.2 MB`` (decimal units, as registries count)."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def ended_text(event: events.StepEnded) -> str:
    """``CACHED``, or how long it took and what it weighs."""
    match event.outcome:
        case Outcome.CACHED:
            return "CACHED"
        case Outcome.UNUSED:
            return "NOT NEEDED"
        case Outcome.DONE:
            weight = "no layer" if event.layer_bytes is None else readable_bytes(event.layer_bytes)
            return f"{event.seconds:.1f}s, {weight}"
        case _:
            assert_never(event.outcome)


def pushed_text(event: events.Pushed) -> str:
    """What a push moved, on one line."""
    moved = f"{readable_bytes(event.uploaded_bytes)} uploaded in {event.uploaded_blobs} blobs"
    return (
        f"pushed {event.destination}@{event.digest}: {moved}, {event.reused_blobs} already there"
        f" or mounted, {event.seconds:.1f}s"
    )


class PlainProgress:
    """One line for each thing that happens; a command's output indented below its step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rest: dict[events.StepName, bytes] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case events.StepStarted(step):
                self._line(f"{step}")
            case events.StepOutput(step, data):
                self._output(step, data)
            case events.StepEnded(step):
                self._flush(step)
                self._line(f"{step}: {ended_text(event)}")
            case events.Planned(step, key, prospect):
                self._line(f"{step}: {prospect.value}" + (f", key {key}" if key else ""))
            case events.Missed(step, why):
                self._line(f"{step}: not in the cache: {why}")
            case events.Note(text) | events.Warned(text) | events.Failed(text):
                self._line(_PREFIXES[type(event)] + text)
            case events.Pushed():
                self._line(pushed_text(event))
            case events.Written(what, path):
                self._line(f"wrote {what} to {path}")
            case _:
                assert_never(event)

    def close(self) -> None:
        """Shows what is left of unfinished lines."""
        for step in list(self._rest):
            self._flush(step)

    def _output(self, step: events.StepName, data: bytes) -> None:
        *lines, rest = (self._rest.get(step, b"") + data).split(b"\n")
        for line in lines:
            self._line("    " + line.decode("utf-8", "replace").rstrip("\r"))
        self._rest[step] = rest[-65536:]

    def _flush(self, step: events.StepName) -> None:
        if rest := self._rest.pop(step, b""):
            self._line("    " + rest.decode("utf-8", "replace"))

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalProgress(PlainProgress):
    """The same lines with colour, and the step that runs now with a spinner below them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console  # only a terminal pays for importing it

        self._console: Console = Console(file=stream, highlight=False)
        self._status: Status = self._console.status("")

    def __call__(self, event: Event) -> None:
        match event:
            case events.StepStarted(step):
                self._status.update(_escaped(str(step)))
                self._status.start()
                return
            case events.StepEnded() | events.Pushed():
                self._status.stop()
            case _:
                pass
        super().__call__(event)

    def close(self) -> None:
        self._status.stop()
        super().close()

    def _line(self, text: str) -> None:
        style = "dim" if text.startswith("    ") else "green" if text.endswith(": CACHED") else None
        self._console.print(text, style=style, markup=False, soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


class JsonProgress:
    """One JSON object for each event, on a line of its own, for programs.

    ``event`` is its name as in builder.events and ``at`` the time (RFC 3339); what else it has stands under its own
    names. Output that is not UTF-8 is shown with replacement characters.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = msgspec.to_builtins(event, enc_hook=str, builtin_types=(bytes,))
        if isinstance(event, events.StepOutput):
            fields["data"] = event.data.decode("utf-8", "replace")
        line = msgspec.json.encode({"event": type(event).__name__, "at": at} | fields)
        print(line.decode(), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is held back."""


class Style(Enum):
    """How progress is shown; ``auto`` looks whether anybody sits at a terminal."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"


def progress_for(stream: TextIO, environ_term: str, style: Style) -> PlainProgress | JsonProgress:
    """The listener that suits the stream and what was asked for."""
    if style is Style.JSON:
        return JsonProgress(stream)
    if style is Style.AUTO and stream.isatty() and environ_term != "dumb":
        return TerminalProgress(stream)
    return PlainProgress(stream)
