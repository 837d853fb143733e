"""``crossdock cache stats`` and ``ls``, and what the commands that look after a store share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta

import click

from cache.disk.filesystem import FilesystemStore
from cache.errors import StoreUnavailable
from cache.store import AbortRule, Store
from cache.stores import default_url, open_store
from cache.units import told_bytes, told_seconds
from cache.upkeep.inventory import PlaceCounts, StoreCounts, count
from cache.upkeep.listing import Listed, listed

STORE = click.Option(
    ["--store"], metavar="URL", help="file:///PATH or s3://BUCKET/PREFIX. [the user's cache directory, as the proxy's]"
)
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Write JSON instead of text.")
ABORT_ADVICE = "none: set AbortIncompleteMultipartUpload after 1 day on the bucket"


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[Store]:
    """The store at ``url`` (None = where the proxy has it by default), which must be there already.

    Raises click.ClickException. Nothing is written.
    """
    url = url or default_url(os.environ)
    try:
        store = open_store(url, os.environ)
    except ValueError as error:
        raise click.UsageError(f"--store: {error}") from error
    if url == "memory:":
        raise click.UsageError("--store: what is in memory goes with its process: expected file:///PATH or s3://BUCKET")
    try:
        if isinstance(store, FilesystemStore) and not store.exists():
            raise click.ClickException(f"there is no store at {url}")
        yield store
    finally:
        await store.close()


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Columns: the first to the left, the others to the right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )


async def stats(store: str | None, by_prefix: bool, as_json: bool) -> int:
    """Prints what the store holds."""
    async with opened(store) as it:
        counts = await count(it, read_members=by_prefix)
        rule = await _abort_rule(it)
    if as_json:
        print(json.dumps({"store": it.url, **asdict(counts), "abort_rule": rule}))
        return 0
    print(f"store {it.url}\n")
    print(table(_facts(counts, rule)))
    if counts.places:
        print("\n" + table(_places(counts, by_prefix)))
    return 0


async def _abort_rule(store: Store) -> str:
    """The bucket's rule against unfinished uploads, as text; "" for what is no bucket."""
    if not isinstance(store, AbortRule):
        return ""
    try:
        rule: timedelta | None = await store.abort_rule()
    except StoreUnavailable:
        return "unknown: the rules cannot be read"
    return ABORT_ADVICE if rule is None else f"after {told_seconds(rule.total_seconds())}"


def _facts(counts: StoreCounts, rule: str) -> Iterable[tuple[str, ...]]:
    yield "blobs", f"{counts.blobs:,}", told_bytes(counts.blob_bytes)
    for name in ("repositories", "tags", "members"):
        yield name, f"{sum(getattr(place, name) for place in counts.places.values()):,}", ""
    yield "cached steps", f"{counts.layers:,}", ""
    yield "on their way in", f"{counts.unfinished.files:,}", told_bytes(counts.unfinished.files_bytes)
    if rule:
        yield "multipart uploads", f"{counts.unfinished.uploads:,}", f"abort rule {rule}"
    yield "damaged, put aside", f"{counts.damaged:,}", ""


def _places(counts: StoreCounts, by_prefix: bool) -> Iterable[tuple[str, ...]]:
    head = ("prefix", "repositories", "tags", "members")
    yield (*head, "manifests", "bytes") if by_prefix else head
    for place, found in sorted(counts.places.items()):
        row = (f"{place}/", f"{found.repositories:,}", f"{found.tags:,}", f"{found.members:,}")
        yield (*row, *_read(found)) if by_prefix else row


def _read(found: PlaceCounts) -> tuple[str, str]:
    return f"{found.manifests:,}", told_bytes(found.named_bytes)


async def ls(store: str | None, prefix: str, as_json: bool) -> int:
    """Prints the tags and cached steps below a prefix, each as it is found."""
    status, now = 0, time.time()
    async with opened(store) as it:
        if not as_json:
            print(_line("SIZE", "AGE", "NAME"))
        try:
            async for found in listed(it, prefix.strip("/")):
                status |= bool(found.problem)
                print(json.dumps(asdict(found)) if as_json else _told(found, now), flush=True)
        except ValueError as error:
            raise click.UsageError(f"PREFIX: {error}") from error
    return status


def _told(found: Listed, now: float) -> str:
    if found.problem:
        return _line("?", "?", f"{found.name}  {found.problem}")
    size = "-" if found.size_bytes is None else told_bytes(found.size_bytes)
    age = "-" if found.at is None else told_seconds(max(0.0, now - found.at))
    return _line(size, age, found.name)


def _line(size: str, age: str, name: str) -> str:
    return f"{size:>9}  {age:>6}  {name}"


STATS = click.Command(
    "stats",
    callback=stats,
    help="Say what the store holds.",
    params=[
        STORE,
        click.Option(
            ["--by-prefix"], is_flag=True, help="Count manifests and bytes by prefix too: reads a record for each."
        ),
        JSON,
    ],
)
LS = click.Command(
    "ls",
    callback=ls,
    short_help="List tags and cached steps.",
    help="List tags and cached steps: at and below PREFIX (a repository, the beginning of its name, or 'layers').",
    params=[STORE, click.Argument(["prefix"], default=""), JSON],
)
