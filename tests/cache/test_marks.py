"""The compact set of digests, compared with Python's own."""

import random

from cache.oci.digest import Digest
from cache.upkeep.marks import Marks, mark


def test_a_mark_is_the_beginning_of_a_digest():
    assert mark(Digest("sha256", "00000000000000ff" + "ab" * 24)) == 0xFF
    assert mark(Digest("sha512", "ffffffffffffffff" + "00" * 56)) == 2**64 - 1


def test_it_has_what_was_added_and_nothing_else():
    rng = random.Random(7)
    added = [rng.getrandbits(64) for _ in range(300_000)]
    marks = Marks(added)
    assert len(marks) == len(set(added))
    assert all(each in marks for each in added)
    assert not any(each in marks for each in (rng.getrandbits(64) for _ in range(50_000)))


def test_adding_says_whether_it_is_new_also_when_it_was_sorted_in():
    marks = Marks()
    assert all(marks.add(each) for each in range(5000))
    assert not any(marks.add(each) for each in range(5000))
    assert len(marks) == 5000
