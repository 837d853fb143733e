"""The errors of a build. Each prints as one paragraph; those that know their place in a file show it.

BuildError(message, span)
├── DockerfileError     the Dockerfile does not follow the language
├── PlanError           it does, but what it asks for cannot be planned (no such stage, a cycle)
├── ContextError        the build context: a missing source, a path that escapes
└── StepFailed(exit_code)   a RUN command failed
"""

from __future__ import annotations

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A place in a file: the first line (from 1) with its text, and columns ``start`` to ``stop`` (from 0) in it."""

    file: str
    line: int
    text: str
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        width = max(1, min(self.stop, len(self.text)) - self.start)
        number = str(self.line)
        indent = "".join("\t" if char == "\t" else " " for char in self.text[: self.start])
        return f"{self.file}:{self.line}\n  {number} | {self.text}\n  {' ' * len(number)} | {indent}{'^' * width}"


class BuildError(Exception):
    """A build that cannot go on; ``span`` says where in the Dockerfile, when that is known."""

    exit_code = 1

    def __init__(self, message: str, span: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span

    def at(self, span: Span) -> BuildError:
        """The same error with a place, where it has none of its own."""
        if self.span is not None:
            return self
        return type(self)(self.message, span)

    def __str__(self) -> str:
        return f"{self.message}\n{self.span}" if self.span else self.message


class DockerfileError(BuildError):
    """Text that is not a Dockerfile, or a part of the language that we do not support."""


class PlanError(BuildError):
    """A stage, target or base that does not exist or cannot be used so."""


class ContextError(BuildError):
    """A source that is missing from the build context or would leave it."""


class StepFailed(BuildError):
    """A command that ended with another status than 0; the build ends with the same."""

    def __init__(self, message: str, span: Span | None = None, exit_code: int = 1) -> None:
        super().__init__(message, span)
        self.exit_code = exit_code
