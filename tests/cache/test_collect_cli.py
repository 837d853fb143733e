"""``crossdock cache gc``."""

import asyncio
import json

import pytest
import structlog

from cache.disk.filesystem import FilesystemStore
from cache.upkeep.cli import main
from tests.cache.gc_world import World


@pytest.fixture(autouse=True)
def _logging():
    """Leaves the logging of other tests as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def url(tmp_path):
    """A store with an image and a blob that nothing leads to."""

    async def fill():
        store = FilesystemStore(tmp_path)
        world = World(store)
        await world.image("app", "v1", b"layer")
        await world.image("cache", "a" * 64, b"step")
        await world.blob("app", b"stray")
        await store.close()

    asyncio.run(fill())
    return tmp_path.as_uri()


def test_it_says_what_it_would_do(url, capsys):
    assert main(["gc", "--store", url, "--retain", "cache entries=5", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "cache: kept 1 entries" in said
    assert "1 blobs are unreachable, 5 B" in said
    assert "1 blobs would be condemned, to be deleted in 24 h at the earliest" in said


def test_two_runs_delete_once_the_grace_is_over(url, capsys):
    assert main(["gc", "--store", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["condemned"] == 1
    assert main(["gc", "--store", url]) == 0
    assert "1 blobs wait for their deletion" in capsys.readouterr().out


def test_offline_deletes_at_once(url, capsys):
    assert main(["gc", "--store", url, "--offline", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["freed"], report["freed_bytes"]) == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--retain", "cache"], "expected PREFIX LIMIT"),
        (["--grace", "soon"], "'soon' is not a time"),
        (["--grace", "60s"], "expected more than 90 s"),
    ],
)
def test_wrong_usage_is_told(url, capsys, arguments, problem):
    assert main(["gc", "--store", url, *arguments]) == 2
    assert problem in capsys.readouterr().err
