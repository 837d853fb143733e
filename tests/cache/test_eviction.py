"""What has to go from a bounded cache: decided on keys and sizes alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.disk.eviction import Index, Marks, plan_eviction

MARKS = Marks(100, 80)


@pytest.mark.parametrize(
    ("held", "wanted", "pinned", "going"),
    [
        (60, 40, "", ""),  # just fits
        (60, 41, "", "ab"),  # 101 > 100: down to 80
        (60, 41, "a", "bc"),
        (60, 41, "abc", None),
        (60, 41, "ab", "c"),  # 81 is above the low mark, and fits
        (60, 130, "", None),
        (60, 100, "", "abc"),
        (60, 100, "b", None),
    ],
)
def test_least_recently_used_goes_first(held, wanted, pinned, going):
    entries = [("a", 20), ("b", 20), ("c", 20)]
    assert plan_eviction(entries, held, wanted, MARKS, pinned) == (None if going is None else list(going))


def test_marks():
    assert Marks.below(1000) == Marks(1000, 900)
    for high, low in [(10, 11), (10, -1)]:
        with pytest.raises(ValueError, match="low <= high"):
            Marks(high, low)


def filled(*keys):
    index = Index(MARKS)
    for key in keys:
        assert index.reserve(20) == []
        index.add(key, 20)
    return index


def test_use_makes_young():
    index = filled("a", "b", "c", "d", "e")
    assert index.use("a") == 20
    assert index.use("z") is None
    assert index.reserve(20) == ["b", "c"]
    assert (index.held_bytes, len(index)) == (80, 3)


def test_pins_count():
    index = filled("a", "b", "c", "d", "e")
    index.pin("a")
    index.pin("a")
    index.unpin("a")
    assert index.reserve(10) == ["b", "c"]
    index.release(10)
    index.unpin("a")
    assert index.reserve(50) == ["a", "d"]


def test_a_promise_counts_until_it_is_kept_or_taken_back():
    index = filled("a")
    assert index.reserve(80) == []
    assert index.reserve(1) == ["a"]
    assert index.reserve(40) is None
    index.release(81)
    assert index.held_bytes == 0


def test_an_entry_that_is_added_again_counts_once():
    index = filled("a", "a")
    assert (index.held_bytes, len(index)) == (20, 1)


def test_what_was_there_before_is_older_than_what_came_meanwhile():
    index = filled("new")
    assert index.found([("old", 30), ("new", 20), ("older than it looks", 40)]) == []
    assert (index.held_bytes, len(index)) == (90, 3)
    assert index.reserve(20) == ["old"]
    assert Index(MARKS).found([("a", 60), ("b", 60)]) == ["a"]


def test_shrink_frees_as_much():
    index = filled("a", "b", "c")
    assert index.shrink(25) == ["a", "b"]
    assert Index(MARKS).shrink(10) == []


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 60), st.sampled_from(["add", "use", "pin", "unpin"]))
    )
)
def test_it_never_holds_more_than_the_high_mark(steps):
    index, pinned = Index(MARKS), []
    for key, size_bytes, step in steps:
        if step == "add" and (going := index.reserve(size_bytes)) is not None:
            assert not set(going) & set(pinned)
            index.add(key, size_bytes)
        elif step == "use":
            index.use(key)
        elif step == "pin":
            index.pin(key)
            pinned.append(key)
        elif step == "unpin" and key in pinned:
            index.unpin(key)
            pinned.remove(key)
        assert 0 <= index.held_bytes <= MARKS.high_bytes
