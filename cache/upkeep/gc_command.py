"""``crossdock cache gc``."""

from __future__ import annotations

import json

import click

from cache.errors import RecordConflict
from cache.units import parse_seconds
from cache.upkeep.collect import Collection, collect
from cache.upkeep.commands import JSON, STORE, opened
from cache.upkeep.retention import Retention


async def gc(
    *,
    store: str | None,
    retain: tuple[str, ...],
    grace: str,
    offline: bool,
    dry_run: bool,
    requests_per_second: float | None,
    as_json: bool,
) -> int:
    """Collects garbage once, and prints the report."""
    try:
        retentions = tuple(map(Retention.parse, retain))
        how = Collection(retentions, parse_seconds(grace), offline, dry_run, requests_per_second)
    except ValueError as error:
        raise click.UsageError(f"--retain, --grace: {error}") from error
    async with opened(store) as it:
        try:
            report = await collect(it, how)
        except RecordConflict as error:
            raise click.ClickException(f"another gc is at work on this store: {error}") from error
    print(json.dumps(report.as_json()) if as_json else "\n".join(report.lines()))
    return 0


GC = click.Command(
    "gc",
    callback=gc,
    short_help="Delete what no retention keeps and nothing leads to.",
    help="Remove entries that break a limit, and blobs that nothing leads to. A run condemns blobs, and the next one "
    "after the grace deletes them: clients may push and pull meanwhile.",
    params=[
        STORE,
        click.Option(
            ["--retain"],
            multiple=True,
            metavar="'PREFIX LIMITS'",
            help="Keep what is within idle=TIME, age=TIME, bytes=BYTES and entries=NUMBER, with commas between, for "
            "example 'cache idle=14d,bytes=50GB'. The first that covers a repository counts; 'layers' are a builder's.",
        ),
        click.Option(["--grace"], default="1d", metavar="TIME", help="How long the condemned are kept. [1d]"),
        click.Option(["--offline"], is_flag=True, help="Nothing else uses the store now: delete at once."),
        click.Option(
            ["--requests-per-second"], type=click.FloatRange(min=1), metavar="RATE", help="Ask no faster. [no limit]"
        ),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be done; delete and write nothing."),
        JSON,
    ],
)
