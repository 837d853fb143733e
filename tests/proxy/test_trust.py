"""Cache keys are claims: who replaced whose content under one is on record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from cache.oci.credentials import Credential
from cache.oci.errors import RegistryError
from tests.proxy.running import client_of, make_image, push, running_proxy
from tests.proxy.test_maintenance import counted
from tests.proxy.test_rights import PASSWORD, guarded_proxy


async def test_a_second_write_that_differs_is_on_record_with_both_producers(tmp_path: Path):
    one, other = make_image(1, 1000), make_image(2, 1000)
    key = "a" * 64
    with structlog.testing.capture_logs() as said:
        async with guarded_proxy(tmp_path) as proxy:
            for who, image in (("owner", one), ("owner", one), ("writer", other)):
                async with client_of(proxy.url, Credential(who, PASSWORD)) as client:
                    await push(client, "cache/app", key, image)
            assert await counted(proxy, 'proxy_tag_changes_total{outcome="changed"}') == 1
    (changed,) = [line for line in said if line["event"] == "tag_changed"]
    assert changed["audit"] is True
    assert (changed["repository"], changed["tags"]) == ("cache/app", [key])
    assert (changed["who"], changed["digest"]) == ("writer", str(other.manifest.digest))
    assert (changed["replaced_who"], changed["replaced_digest"]) == ("owner", str(one.manifest.digest))
    assert PASSWORD not in str(changed)


async def test_where_the_first_writer_counts_a_tag_never_changes(tmp_path: Path):
    one, other = make_image(1, 1000), make_image(2, 1000)
    with structlog.testing.capture_logs() as said:
        async with running_proxy(tmp_path, {}, first_writer=("cache/main",)) as proxy, client_of(proxy.url) as client:
            await push(client, "cache/main/app", "key", one)
            await push(client, "cache/main/app", "key", one)
            with pytest.raises(RegistryError, match="TAG_INVALID"):
                await push(client, "cache/main/app", "key", other)
            assert (await client.get_manifest("cache/main/app", "key")).digest == one.manifest.digest
            await push(client, "cache/mainly", "key", one)
            await push(client, "cache/mainly", "key", other)
            await client.delete_tag("cache/main/app", "key")
            await push(client, "cache/main/app", "key", other)
            pushes = (push(client, "cache/main/app", "raced", image) for image in (one, other))
            ended = await asyncio.gather(*pushes, return_exceptions=True)
            assert sorted(type(end).__name__ for end in ended) == ["NoneType", "RegistryError"]
            assert await counted(proxy, 'proxy_tag_changes_total{outcome="refused"}') == 2
    assert [line["event"] for line in said if line["event"].startswith("tag_change")] == [
        "tag_change_refused",
        "tag_changed",
        "tag_change_refused",
    ]
