"""The proxy's own accounts at upstreams: what is read with them, by whom, and how they are kept up to date."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from cache.oci.credentials import Credential
from cache.oci.errors import Denied
from proxy.auth import accounts
from proxy.auth.rights import Rule, Rules
from proxy.config import Account, Freshness, Upstream
from proxy.errors import ConfigError
from tests.peers import Registry
from tests.proxy.running import (
    UPSTREAM,
    Image,
    Proxy,
    client_of,
    get,
    make_image,
    push,
    running_proxy,
    scripted_upstream,
)
from tests.proxy.test_private import basic

GUEST = basic(Credential("somebody", "else"))


def write_config(path: Path, credential: Credential, host: str = UPSTREAM) -> None:
    """A docker config.json with this credential."""
    auth = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@asynccontextmanager
async def account_proxy(
    tmp_path: Path, url: str, rules: tuple[str, ...] = ("* up.test/team read,fetch", "* up.test/other all")
) -> AsyncIterator[Proxy]:
    """A proxy that reads ``team/`` with the account in ``config.json``; ``access_ttl`` is nothing."""
    account = Account(tmp_path / "config.json", ("team",))
    upstream = Upstream(UPSTREAM, url, freshness=Freshness(access_ttl_s=0.0), account=account)
    async with running_proxy(tmp_path, {UPSTREAM: upstream}, rules=Rules(tuple(map(Rule.parse, rules)))) as proxy:
        yield proxy


@pytest.fixture
async def image(private_registry: Registry) -> Image:
    """An image in two private repositories: ``team/app`` and ``other/app``."""
    made = make_image(layer_bytes=1000)
    async with client_of(private_registry.url, owner(private_registry)) as client:
        for repository in ("team/app", "other/app"):
            await push(client, repository, "1", made)
    return made


def owner(registry: Registry) -> Credential:
    return Credential(registry.username, registry.password)


@pytest.mark.parametrize("headers", [{}, GUEST], ids=["anonymous", "guest"])
async def test_whom_the_rules_let_in_reads_with_the_account(
    private_registry: Registry, image: Image, tmp_path: Path, headers: dict[str, str]
):
    write_config(tmp_path / "config.json", owner(private_registry))
    async with account_proxy(tmp_path, private_registry.url) as proxy:
        for path in ("manifests/1", f"manifests/{image.manifest.digest}", f"blobs/{image.layer}", "tags/list"):
            assert (await get(f"{proxy.url}/v2/team/app/{path}", **headers))[0] == 200, path
        async with aiohttp.ClientSession() as session:
            lookup = {"repository": "team/app", "keys": ["0" * 64]}
            async with session.post(f"{proxy.url}/_crossdock/v1/lookup", json=lookup, headers=headers) as response:
                assert response.status == 200
        # The account opens nothing outside its prefixes, not even what it brought into the cache.
        for path in ("manifests/1", f"manifests/{image.manifest.digest}", f"blobs/{image.layer}", "tags/list"):
            assert (await get(f"{proxy.url}/v2/other/app/{path}", **headers))[0] == 401, path


async def test_whom_the_rules_do_not_let_in_does_not(private_registry: Registry, image: Image, tmp_path: Path):
    write_config(tmp_path / "config.json", owner(private_registry))
    mine = basic(owner(private_registry))
    async with account_proxy(tmp_path, private_registry.url, ("guest up.test/team/open read",)) as proxy:
        for path in ("manifests/1", f"blobs/{image.layer}", "tags/list"):
            assert (await get(f"{proxy.url}/v2/team/app/{path}", **mine))[0] == 404, path
            assert (await get(f"{proxy.url}/v2/team/app/{path}"))[0] == 401, path
        assert not private_registry.count("GET", "/manifests/")


async def test_pushes_are_made_with_the_clients_own_credentials(
    private_registry: Registry, image: Image, tmp_path: Path
):
    write_config(tmp_path / "config.json", owner(private_registry))
    async with account_proxy(tmp_path, private_registry.url, ("* * all",)) as proxy:
        async with client_of(proxy.url) as client:
            with pytest.raises(Denied):
                await push(client, "team/app", "2", image)
            with pytest.raises(Denied):
                await client.delete_manifest("team/app", image.manifest.digest)
        async with client_of(proxy.url, owner(private_registry)) as client:
            await push(client, "team/app", "2", image)
        assert (await get(f"{proxy.url}/v2/team/app/manifests/2"))[0] == 200


async def test_what_the_account_reads_can_be_mounted_where_its_reader_may_write(
    private_registry: Registry, image: Image, tmp_path: Path
):
    write_config(tmp_path / "config.json", owner(private_registry))
    rules = ("anonymous up.test/team read,fetch", "* cache all")
    async with account_proxy(tmp_path, private_registry.url, rules) as proxy, aiohttp.ClientSession() as session:
        assert (await get(f"{proxy.url}/v2/team/app/blobs/{image.layer}"))[0] == 200
        url = f"{proxy.url}/v2/cache/mine/blobs/uploads/?mount={image.layer}&from=up.test/team/app"
        async with session.post(url, headers=GUEST) as response:
            assert response.status == 202
        async with session.post(url) as response:
            assert response.status == 201


async def eventually(ask: Callable[[], Awaitable[int]], status: int) -> None:
    """Returns when the answer is that."""
    async with asyncio.timeout(20):
        while await ask() != status:
            await asyncio.sleep(0.01)


async def test_a_changed_file_is_read_again(
    private_registry: Registry, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accounts, "CHECK_S", 0.01)
    write_config(tmp_path / "config.json", Credential(private_registry.username, "old password"))
    async with account_proxy(tmp_path, private_registry.url) as proxy:
        status, headers, body = await get(f"{proxy.url}/v2/team/app/manifests/1")
        assert (status, "WWW-Authenticate" in headers) == (403, False)
        assert b"own account" in body
        (tmp_path / "config.json").write_text("half a fi")
        write_config(tmp_path / "new.json", owner(private_registry), private_registry.host)
        os.replace(tmp_path / "new.json", tmp_path / "config.json")

        async def ask() -> int:
            return (await get(f"{proxy.url}/v2/team/app/manifests/1"))[0]

        await eventually(ask, 200)
        with structlog.testing.capture_logs() as logs:
            (tmp_path / "config.json").unlink()
            async with asyncio.timeout(20):
                while not [line for line in logs if line["event"] == "account_not_usable"]:
                    await asyncio.sleep(0.01)
        assert await ask() == 200


def write_helper(folder: Path, *answers: str) -> None:
    """A credential helper that prints these, one at each call, and the last one from then on; "" = it fails."""
    (folder / "answers").mkdir()
    for number, answer in enumerate(answers):
        (folder / "answers" / str(number)).write_text(answer)
    helper = folder / "docker-credential-told"
    helper.write_text(
        f"#!/bin/sh\ncd {folder}/answers\nset -- *\ncat $1 | grep . || exit 1\nif [ $# -gt 1 ]; then rm $1; fi\n"
    )
    helper.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"credHelpers": {UPSTREAM: "told"}}))


async def test_a_helper_is_asked_again_when_its_answer_is_refused(
    private_registry: Registry, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accounts, "DOUBTED_S", 0.0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ended = json.dumps({"Username": private_registry.username, "Secret": "ended"})
    good = json.dumps({"Username": private_registry.username, "Secret": private_registry.password})
    write_helper(tmp_path, ended, good)
    async with account_proxy(tmp_path, private_registry.url) as proxy:

        async def ask() -> int:
            return (await get(f"{proxy.url}/v2/team/app/manifests/1"))[0]

        assert await ask() == 403
        await eventually(ask, 200)


async def test_the_proxy_starts_without_what_a_helper_cannot_give_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accounts, "CHECK_S", 0.01)
    monkeypatch.setattr(accounts, "DOUBTED_S", 0.0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_helper(tmp_path, "")
    async with scripted_upstream() as upstream, account_proxy(tmp_path, upstream.url) as proxy:

        async def ask() -> int:
            return (await get(f"{proxy.url}/v2/team/app/manifests/1"))[0]

        assert await ask() == 503
        assert not upstream.seen  # never as somebody else
        (tmp_path / "answers" / "0").write_text(json.dumps({"Username": "u", "Secret": "p"}))
        await eventually(ask, 404)


@pytest.mark.parametrize("text", [None, "not JSON"])
async def test_a_file_that_cannot_be_used_is_a_fault_at_start(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"up\.test.*config\.json"):
        async with account_proxy(tmp_path, "http://127.0.0.1:1"):
            pass
