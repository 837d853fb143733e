"""The name that was probably meant: BuildKit's hints, which count how many characters are wrong."""

from __future__ import annotations

from collections.abc import Iterable

_TOO_FAR = 3


def closest(word: str, names: Iterable[str]) -> str:
    """The first of the ``names`` that fewest single edits make of ``word``, at most two; "" where none is so near.

    Of two that are equally near it is the one with the same letters.
    """
    near = ((edits, sorted(name) != sorted(word), name) for name in names if (edits := _edits(word, name)) < _TOO_FAR)
    return min(near, key=lambda found: found[:2], default=(0, False, ""))[2]


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for index, char in enumerate(one, 1):
        diagonal, row[0] = row[0], index
        for place, its in enumerate(other, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (char != its))
    return row[-1]
