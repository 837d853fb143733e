"""SIGHUP: a configuration read again takes effect for new requests or is refused whole; what runs goes on."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from cache.oci.digest import Digest
from proxy import options
from proxy.auth.rights import Rule, Rules
from proxy.config import LogStyle, ProxyConfig, Tls, Upstream
from proxy.errors import ConfigError
from proxy.reload import OPTIONS, Configuration
from tests.proxy.processes import Process, started
from tests.proxy.running import get, make_image, scripted_upstream

CONFIG = ProxyConfig(
    host="127.0.0.1",
    port=0,
    store_url="memory:",
    upstreams={"up.test": Upstream("up.test", "http://up")},
    default_upstream="up.test",
    hosted=("cache",),
)


@pytest.mark.parametrize(
    ("new", "changed"),
    [
        (CONFIG, ()),
        (replace(CONFIG, upstreams={}, default_upstream=None), ("upstream", "default-upstream")),
        (replace(CONFIG, rules=Rules((Rule.parse("* * read"),)), drain_s=1.0), ("rule", "drain")),
        (replace(CONFIG, log=LogStyle("text", "debug")), ("log-format", "log-level")),
        (
            replace(CONFIG, hosts=("proxy.test",), users_file=Path("u"), tokens_file=Path("t")),
            ("host", "users", "tokens"),
        ),
    ],
)
def test_what_may_change(new: ProxyConfig, changed: tuple[str, ...]):
    configuration = Configuration(CONFIG)
    assert configuration.change(new) == changed
    assert configuration.current is new


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (replace(CONFIG, host="::1"), ["listen"]),
        (replace(CONFIG, port=1), ["listen"]),
        (replace(CONFIG, store_url="file:///x", spool_dir=Path("/x"), hosted=()), ["store", "spool-dir"]),
        (replace(CONFIG, tls=Tls(Path("c"), Path("k"))), ["tls-cert"]),
    ],
)
def test_what_needs_a_restart_is_refused_whole(new: ProxyConfig, named: list[str]):
    configuration = Configuration(CONFIG)
    with pytest.raises(ConfigError) as refused:
        configuration.change(new)
    assert [problem.split()[0] for problem in refused.value.problems] == named
    assert all("needs a restart" in problem for problem in refused.value.problems)
    assert configuration.current is CONFIG


def test_no_option_is_forgotten():
    known = {option.name for option in options.OPTIONS}
    of_each_upstream = {"tag", "tag-ttl", "revalidate", "max-stale", "negative-ttl", "access-ttl"}
    assert set(OPTIONS) == known - of_each_upstream


def write(file: Path, upstream: str, *more: str) -> None:
    lines = [f'upstream = ["up.test={upstream}"]', 'default-upstream = "up.test"', 'log-format = "json"', *more]
    file.write_text("\n".join(lines) + "\n")


async def hang_up(process: Process, event: str, count: int = 1) -> dict[str, object]:
    process.popen.send_signal(signal.SIGHUP)
    return (await process.logged(event, count))[-1]


async def test_another_upstream_while_a_blob_is_on_its_way_and_an_upload_is_open(tmp_path: Path):
    image, file = make_image(layer_bytes=400_000), tmp_path / "crossdock.toml"
    layer = image.blobs[image.layer]
    async with scripted_upstream() as one, scripted_upstream() as other:
        one.blobs, one.pause_at = {str(image.layer): layer}, 100_000
        one.manifests["1"] = other.manifests["2"] = image.manifest.raw
        write(file, one.url)
        with started(tmp_path, "--config", str(file)) as process:
            async with aiohttp.ClientSession() as session:
                places = [f"{process.url}/v2/{name}/blobs/uploads/" for name in ("org/app", "cache/app")]
                uploads = [(await session.post(place)).headers["Location"] for place in places]
                async with session.get(f"{process.url}/v2/org/app/blobs/{image.layer}") as following:
                    start = await following.content.readexactly(50_000)
                    write(file, other.url, 'tag-ttl = "1h"')
                    assert (await hang_up(process, "config_reloaded"))["changed"] == ["upstream"]
                    assert (await get(f"{process.url}/v2/org/app/manifests/2"))[2] == image.manifest.raw
                    one.go_on.set()
                    assert start + await following.read() == layer
                for place in uploads:
                    answer = await session.put(f"{process.url}{place}?digest={Digest.of(b'x')}", data=b"x")
                    assert answer.status == 201, await answer.text()
            assert (one.count("PUT", "uploads"), other.count("PUT", "uploads")) == (1, 0)


FAULTS = {
    'tag-ttl = "soon"\nno-such = 1': "no-such",
    "upstream =": "TOML",
    'spool-dir = "/tmp"': "spool-dir",
    'tls-cert = "/nowhere"\ntls-key = "/nowhere"': "/nowhere",
    'users = "/nowhere"\nrule = ["* * read"]': "/nowhere",
}


async def test_a_configuration_with_faults_changes_nothing(tmp_path: Path):
    file = tmp_path / "crossdock.toml"
    async with scripted_upstream() as upstream:
        upstream.manifests["1"] = make_image().manifest.raw
        write(file, upstream.url)
        with started(tmp_path, "--config", str(file)) as process:
            for count, (text, named) in enumerate(FAULTS.items(), 1):
                file.write_text(text)
                problems = (await hang_up(process, "config_refused", count))["problems"]
                assert named in str(problems)
                assert (await get(f"{process.url}/v2/org/app/manifests/1"))[0] == 200
            write(file, upstream.url, 'hosted = ["mine"]')
            assert (await hang_up(process, "config_reloaded"))["changed"] == ["hosted"]


async def test_users_rules_and_names_are_those_of_the_files_now(tmp_path: Path):
    file, tokens = tmp_path / "crossdock.toml", tmp_path / "tokens"
    rules = f'hosted = ["cache"]\ntokens = "{tokens}"\nrule = ["ci cache {{}}"]\nupstream = []\nlog-format = "json"\n'
    old, new = "the-old-token-of-ci", "the-new-token-of-ci"
    tokens.write_text(f"ci:{old}\n")
    file.write_text(rules.format("read"))

    async def push_status(process: Process, token: str, host: str = "localhost") -> int:
        headers = {"Authorization": f"Bearer {token}", "Host": host}
        async with aiohttp.ClientSession() as session:
            place = f"{process.url}/v2/cache/app/blobs/uploads/"
            async with session.post(place, headers=headers) as answer:
                return answer.status

    with started(tmp_path, "--config", str(file)) as process:
        assert await push_status(process, old) == 403
        assert await push_status(process, old, "proxy.test") == 421
        file.write_text(rules.format("read,write") + 'host = ["proxy.test"]\n')
        tokens.write_text("no such line\n")
        await hang_up(process, "config_refused")
        assert await push_status(process, old) == 403
        tokens.write_text(f"ci:{new}\n")
        assert (await hang_up(process, "config_reloaded"))["changed"] == ["host", "rule"]
        assert await push_status(process, old) == 401
        assert await push_status(process, new, "proxy.test") == 202


async def test_how_much_is_logged_may_change(tmp_path: Path):
    file = tmp_path / "crossdock.toml"
    write(file, "http://127.0.0.1:1", 'log-level = "warning"')
    with started(tmp_path, "--config", str(file)) as process:
        await get(f"{process.url}/v2/")
        assert process.lines() == []
        write(file, "http://127.0.0.1:1")
        assert (await hang_up(process, "config_reloaded"))["changed"] == ["log-level"]
        await get(f"{process.url}/v2/")
        await process.logged("request_served")
