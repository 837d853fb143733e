"""Why a step was not found in the cache: what went into its key, beside what went into those of the last build (pure).

A build that had something to do leaves a note in the cache: for each step the parts of its key, as hashes too short to
prove a guess. ``--explain`` reads the note of the same build (the same destinations, Dockerfile, target and platform)
and names the parts in which a missed step differs from the noted step that is most like it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import msgspec

from builder.events import Missed
from builder.planning.graph import KeyedStage
from builder.planning.steps import Metadata, Step
from cache.keys import CacheKey, KeyBuilder, Parts

MAX_NOTE_BYTES = 1 << 20
"""Registries take manifests of 4 MiB; a build with a larger note goes without one."""

_TOLD = {
    "access": "the options of a mount",
    "argv": "the command",
    "chmod": "--chmod",
    "chown": "--chown",
    "clamp_mtime_s": "the time clamp (--reproducible, SOURCE_DATE_EPOCH)",
    "content": "the files that it takes",
    "cwd": "the working directory",
    "destination": "the destination",
    "diff_ids": "the layers of the base image",
    "document": "a here-document",
    "mount": "what a mount shows",
    "network": "--network",
    "parent": "what it builds on",
    "path": "the path",
    "platform": "the platform of the base image",
    "script": "the script",
    "user": "USER",
    "workdir": "the working directory",
}
_NO_NOTE = "the cache has no note of an earlier build to compare with"
_GONE = "the last build had the same step: its entry is gone from the cache, or could not be saved"


class NotedStep(msgspec.Struct, frozen=True):
    """A step's place in its stage (-1 for the base), and what went into its key."""

    stage: str
    place: int
    parts: Parts

    @property
    def labelled(self) -> dict[str, str]:
        """The parts by label; of those with the same one, the later ones are numbered."""
        found: dict[str, str] = {}
        counts: dict[str, int] = {}
        for label, value in self.parts:
            counts[label] = counts.get(label, 0) + 1
            found[label if counts[label] == 1 else f"{label}#{counts[label]}"] = value
        return found


def note_key(repositories: Iterable[str], dockerfile: str, target: str, platform: str) -> CacheKey:
    """Where the note of a build lies: the same for every run of the same build."""
    key = KeyBuilder("note").items("repositories", sorted(repositories)).text("dockerfile", dockerfile)
    return key.text("target", target).text("platform", platform).key()


def noted_steps(stages: Iterable[KeyedStage]) -> Iterator[NotedStep]:
    """All that there is to note of these stages."""
    for keyed in stages:
        if keyed.base is not None:
            yield NotedStep(keyed.stage.plan.name, -1, keyed.base.parts())
        for place, step in enumerate(keyed.stage.steps):
            if (noted := _noted(keyed, place, step)) is not None:
                yield noted


def _noted(keyed: KeyedStage, place: int, step: Step) -> NotedStep | None:
    inputs = keyed.inputs[place]
    if inputs is None or isinstance(step, Metadata):
        return None
    return NotedStep(keyed.stage.plan.name, place, inputs.fields(step).parts())


def write_note(steps: Iterable[NotedStep]) -> str:
    """The note as text; empty when it would be too large."""
    data = msgspec.json.encode(list(steps))
    return data.decode() if len(data) <= MAX_NOTE_BYTES else ""


def read_note(text: str) -> tuple[NotedStep, ...]:
    """The steps of a note; none for a text that is not a note of this version."""
    try:
        return tuple(msgspec.json.decode(text, type=list[NotedStep])) if text else ()
    except msgspec.DecodeError:
        return ()


def why_missed(step: NotedStep, noted: Sequence[NotedStep], base: NotedStep | None) -> str:
    """Why the step's key is new; ``base`` is what its stage starts from, where that alone decides over "parent"."""
    if not noted:
        return _NO_NOTE
    nearest = _nearest(step, noted)
    if nearest is None:
        return f"the last build had no such step in stage {step.stage}"
    differing = list(_differences(step.labelled, nearest.labelled))
    if not differing:
        return _GONE
    old_base = next((n for n in noted if n.place == -1 and n.stage == step.stage), None)
    if base is not None and old_base is not None and _TOLD["parent"] in differing:
        differing = [*_differences(base.labelled, old_base.labelled), *(d for d in differing if d != _TOLD["parent"])]
    return "unlike in the last build: " + ", ".join(dict.fromkeys(differing))


def missed_steps(
    stages: Mapping[int, KeyedStage], needed: Iterable[int], found: Container[CacheKey], note: str
) -> Iterator[Missed]:
    """Each step of the ``needed`` stages that the cache does not have, with the reason."""
    noted = read_note(note)
    for index in needed:
        keyed = stages[index]
        base = None if keyed.base is None else NotedStep(keyed.stage.plan.name, -1, keyed.base.parts())
        for place, (step, key) in enumerate(keyed.keyed_steps()):
            here = _noted(keyed, place, step)
            if key is None or here is None:
                continue
            if key not in found:
                yield Missed(step.name, why_missed(here, noted, base))
            base = None  # what follows builds on a step


def _nearest(step: NotedStep, noted: Iterable[NotedStep]) -> NotedStep | None:
    """The step of the same kind and stage with most in common; of several the one closest in place."""
    kind = step.labelled["kind"]
    alike = [n for n in noted if n.stage == step.stage and n.labelled.get("kind") == kind]
    return max(alike, key=lambda n: (_equal_parts(step, n), -abs(n.place - step.place)), default=None)


def _equal_parts(one: NotedStep, other: NotedStep) -> int:
    return len(one.labelled.items() & other.labelled.items())


def _differences(new: Mapping[str, str], old: Mapping[str, str]) -> Iterator[str]:
    for label in dict.fromkeys((*new, *old)):
        if new.get(label) != old.get(label):
            yield _told(label, is_new=label not in old, is_gone=label not in new)


def _told(label: str, *, is_new: bool, is_gone: bool) -> str:
    plain = label.partition("#")[0]
    tag, _, name = plain.partition(" ")
    text = f"the variable {name}" if name else _TOLD.get(tag, tag)
    return text + (" (new)" if is_new else " (no longer there)" if is_gone else "")
