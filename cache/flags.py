"""The flags of a command as data: names, kinds, and what each does here.

Names and short forms are those of Kaniko's executor and warmer, so that an existing pipeline needs no change. A flag
that is not in a command's table is an error, and so is a value that cannot be honoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice


class Kind(Enum):
    """What follows a flag."""

    BOOL = "bool"
    TEXT = "text"
    LIST = "list"
    """Text; may be given several times."""


class Effect(Enum):
    """What a flag does here, beside what it does in Kaniko."""

    SAME = "same"
    OWN = "own"
    """Kaniko has no such flag."""
    IGNORED = "ignored"
    """Accepted and without effect; ``help`` says why."""
    REFUSED = "refused"
    """An error where it is set; ``help`` says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``env`` are the environment variables that give its default, the first that is set.

    ``unlike`` says how it differs from Kaniko's of the same name.
    """

    name: str
    kind: Kind
    help: str
    short: str = ""
    also: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    default: str = ""
    effect: Effect = Effect.SAME
    unlike: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way to write it, with its dashes."""
        long = tuple(f"--{name}" for name in (self.name, *self.also))
        return (*long, f"-{self.short}") if self.short else long

    @property
    def field(self) -> str:
        """Its name as an identifier."""
        return self.name.replace("-", "_")


def in_click_s_words(arguments: Sequence[str], flags: Iterable[Flag]) -> list[str]:
    """The arguments as Go's pflag reads them: ``--cache`` → ``--cache=true``, ``-d=x`` → ``-d x``.

    Kaniko's booleans take ``--cache`` and ``--cache=false``, but never ``--cache false``.
    """
    kinds = {spelling: flag.kind for flag in flags for spelling in flag.spellings}
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*found, argument, *rest]
        if name not in kinds:
            found.append(argument)
        elif not equals and kinds[name] is not Kind.BOOL:
            found += [argument, *islice(rest, 1)]
        elif name.startswith("--"):
            found.append(argument if equals else f"{name}=true")
        else:
            found += [name, value if equals else "true"]
    return found


def with_effect(effect: Effect, *flags: Flag) -> tuple[Flag, ...]:
    """The flags, all with this effect."""
    return tuple(replace(flag, effect=effect) for flag in flags)
