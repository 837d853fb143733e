"""Cache keys are claims: who replaced whose content under one is on record."""

from __future__ import annotations

from pathlib import Path

import structlog

from cache.oci.credentials import Credential
from tests.proxy.running import client_of, make_image, push
from tests.proxy.test_rights import PASSWORD, guarded_proxy


async def test_a_second_write_that_differs_is_on_record_with_both_producers(tmp_path: Path):
    one, other = make_image(1, 1000), make_image(2, 1000)
    key = "a" * 64
    with structlog.testing.capture_logs() as said:
        async with guarded_proxy(tmp_path) as proxy:
            for who, image in (("owner", one), ("owner", one), ("writer", other)):
                async with client_of(proxy.url, Credential(who, PASSWORD)) as client:
                    await push(client, "cache/app", key, image)
    (changed,) = [line for line in said if line["event"] == "tag_changed"]
    assert changed["audit"] is True
    assert (changed["repository"], changed["tags"]) == ("cache/app", [key])
    assert (changed["who"], changed["digest"]) == ("writer", str(other.manifest.digest))
    assert (changed["replaced_who"], changed["replaced_digest"]) == ("owner", str(one.manifest.digest))
    assert PASSWORD not in str(changed)
