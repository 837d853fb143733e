"""What gc remembers by the million, compared with Python's own sets and mappings."""

import random

import msgspec
import pytest

from cache.oci.digest import Digest
from cache.upkeep.digests import Digests, pack, unpack
from cache.upkeep.marks import mark, mark_of
from cache.upkeep.usage_table import UsageShard
from cache.upkeep.uses import Used


def some_digests(count):
    return [Digest.of(b"%d" % number, "sha512" if number % 5 == 0 else "sha256") for number in range(count)]


def test_a_digest_is_its_bytes():
    for digest in some_digests(10):
        assert unpack(pack(digest)) == digest
        assert mark_of(pack(digest)) == mark(digest)


def test_digests_are_there_as_often_as_they_were_added_until_they_are_taken():
    added = [(pack(digest), number) for number, digest in enumerate(some_digests(2000))]
    digests = Digests()
    for packed, number in (*added, added[7]):
        digests.add(packed, number)
    assert sorted(digests) == sorted([*added, added[7]])
    assert len(digests) == 2001
    shard = added[7][0][0]
    here = sorted(digests.of(shard))
    assert here == sorted(row for row in [*added, added[7]] if row[0][0] == shard)
    assert sorted(digests.take(shard)) == here
    assert (list(digests.of(shard)), shard in digests.shards()) == ([], False)
    assert len(digests) == len(list(digests)) == 2001 - len(here)


def test_uses_are_as_they_were_set_also_when_they_come_from_a_record():
    rng, shard, expected = random.Random(7), UsageShard(), {}
    for turn in range(3000):
        name = rng.choice([rng.getrandbits(56), *list(expected)[:50]])
        expected[name] = Used(float(turn), float(turn + 1), turn, float(turn % 3))
        shard.set(name, expected[name])
    for found in (shard, UsageShard.decode(shard.encode())):
        assert len(found) == len(expected)
        assert {name: found.get(name) for name in expected} == expected
        assert found.get(1) is None


def test_a_use_of_what_is_gone_is_forgotten_in_the_end():
    shard = UsageShard()
    for name, last_at in ((1, 10.0), (2, 10.0), (3, 30.0), (4, 10.0)):
        shard.set(name, Used(0.0, last_at, 1))
    shard = UsageShard.decode(shard.encode())
    shard.set(5, Used(0.0, 0.0, 0))
    for name in (2, 5, 6):
        shard.touch(name)
    shard.forget_unused_since(20.0)
    assert [name for name in range(7) if shard.get(name) is not None] == [2, 3, 5]
    assert shard.changed


@pytest.mark.parametrize(
    "columns",
    [[[2, 1], [0.0, 0.0], [0.0, 0.0], [0, 0], [0.0, 0.0]], [[1], [0.0], [0.0], [0], []], [[1], [0.0]], {}],
)
def test_columns_that_do_not_fit_are_damage(columns):
    with pytest.raises(msgspec.DecodeError):
        UsageShard.decode(msgspec.msgpack.encode(columns))
