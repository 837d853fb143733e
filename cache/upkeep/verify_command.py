"""``crossdock cache verify``."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import click

from cache.oci.digest import HEX_LENGTHS, Digest
from cache.record_names import Kind
from cache.store import Scrubbable, Store
from cache.units import told_bytes
from cache.upkeep.commands import JSON, STORE, opened
from cache.upkeep.pace import Pace
from cache.upkeep.scrub import Checked, Health, ScrubStore, check_all, put_aside
from cache.upkeep.walking import records_below

DAMAGE_FOUND = 1


async def verify(store: str | None, prefix: str, bytes_per_second: float | None, repair: bool, as_json: bool) -> int:
    """Reads blobs and prints those that are not what their names say."""
    found: Counter[Health] = Counter()
    read_bytes = aside = 0
    pace = Pace(bytes_per_second)
    async with opened(store) as it:
        if not isinstance(it, Scrubbable):
            raise click.ClickException(f"the blobs of {it.url} cannot be looked after")
        checkable = cast(ScrubStore, it)
        if repair:
            await checkable.check()
        async for checked in check_all(checkable, _blobs(checkable, prefix.strip("/")), pace):
            found[checked.health] += 1
            read_bytes += checked.size_bytes
            if checked.health is Health.GOOD:
                continue
            moved = repair and await _moved(checkable, checked, pace)
            aside += moved
            print(_told(checked, moved, as_json), flush=True)
    total = {health.value: found[health] for health in Health} | {"read_bytes": read_bytes, "put_aside": aside}
    print(json.dumps(total) if as_json else _summary(total))
    return DAMAGE_FOUND if found[Health.DAMAGED] or found[Health.FAILED] else 0


async def _moved(store: ScrubStore, checked: Checked, pace: Pace) -> bool:
    return checked.health is Health.DAMAGED and await put_aside(store, checked, pace, time.time()) is not None


def _blobs(store: ScrubStore, prefix: str) -> AsyncIterator[Digest]:
    """The blobs below a prefix: the beginning of digests, or of repositories' names."""
    if not prefix or any(prefix.startswith(f"{algorithm}:") for algorithm in HEX_LENGTHS):
        return (digest async for digest, _ in store.blobs(prefix))
    return _members(store, prefix)


async def _members(store: Store, place: str) -> AsyncIterator[Digest]:
    """What the repositories below a place have, each once."""
    seen: set[bytes] = set()
    async for named in records_below(store, place):
        digest = named.digest if named.kind is Kind.MEMBER else None
        if digest is not None and (short := bytes.fromhex(digest.hex)) not in seen:
            seen.add(short)
            yield digest


def _told(checked: Checked, moved: bool, as_json: bool) -> str:
    if as_json:
        said = {"digest": str(checked.digest), "health": checked.health.value, "problem": checked.problem}
        return json.dumps(said | {"put_aside": moved})
    problem = f": {checked.problem}" if checked.problem else ""
    return f"{checked.health.value:<8}{checked.digest}{problem}{'; put aside' if moved else ''}"


def _summary(total: dict[str, int]) -> str:
    parts = [f"{total[health.value]:,} {health.value}" for health in Health if total[health.value]] or ["no blobs"]
    put_aside = f", {total['put_aside']:,} put aside" if total["put_aside"] else ""
    return f"{', '.join(parts)}{put_aside}; {told_bytes(total['read_bytes'])} read"


VERIFY = click.Command(
    "verify",
    callback=verify,
    short_help="Read blobs and compare them with their digests.",
    help="Read blobs and compare them with their digests: all, those of the repositories at and below PREFIX, or those "
    "whose digests begin with PREFIX (sha256:ab). The status is 1 when one is damaged.",
    params=[
        STORE,
        click.Argument(["prefix"], default=""),
        click.Option(
            ["--bytes-per-second"], type=click.FloatRange(min=1), metavar="RATE", help="Read no faster. [no limit]"
        ),
        click.Option(
            ["--repair"], is_flag=True, help="Put what is damaged aside, so that it is fetched or built anew."
        ),
        JSON,
    ],
)
