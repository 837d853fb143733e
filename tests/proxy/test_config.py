"""From what was said to a checked configuration: defaults, every option, all faults at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cache.units import parse_bytes, parse_seconds
from proxy.auth.rights import Right, Rule
from proxy.config import Account, DiskCache, Freshness, LogStyle, TagTier, Tls, Upstream
from proxy.errors import ConfigError
from proxy.options import OPTIONS, over, parse_toml
from proxy.settings import make_config

STORE = "file:///tmp/store"


def test_nothing_said_is_a_working_proxy_of_docker_hub():
    config = make_config({}, STORE)
    assert (config.host, config.port, config.store_url) == ("127.0.0.1", 5000, STORE)
    assert config.upstreams == {"docker.io": Upstream("docker.io", "https://registry-1.docker.io")}
    assert (config.default_upstream, config.hosted, config.spool_dir) == ("docker.io", ("cache",), None)
    assert config.rules.allow("anonymous", "cache/x", Right.DELETE)


EVERYTHING = """
listen = "[::1]:0"
store = "s3://bucket/prefix"
default-upstream = "docker.io"
hosted = ["/team/cache/", "cache"]
tag = ["(latest|main)=30s", 'v\\d+=1d']
tag_ttl = 0
revalidate = "1m"
max-stale = "7d"
negative-ttl = 2.5
access-ttl = "90s"
spool-dir = "/spool"
disk-cache = "/disk"
disk-cache-size = "50GiB"
host = ["crossdock.ci.svc", "Crossdock"]
users = "/etc/htpasswd"
tokens = "/etc/tokens"
rule = ["ci,bob cache/ read,write", "* * read", "admin * all"]
tls-cert = "/tls/crt"
tls-key = "/tls/key"
drain = "2m"
log-format = "json"
log-level = "warning"
[upstream."GHCR.io"]
url = "https://ghcr.io/"
[upstream."index.docker.io"]
url = "http://hub:5001"
mirror = ["https://mirror.test", "http://second:1/"]
tag = ["nightly=5s"]
tag-ttl = "1h"
account = "/etc/docker/config.json"
account-prefix = ["library", "org"]
realm-host = ["auth.test"]
redirect-host = ["10.0.0.8"]
"""


def test_everything_can_be_said():
    config = make_config(parse_toml(EVERYTHING), STORE)
    assert (config.host, config.port, config.store_url) == ("::1", 0, "s3://bucket/prefix")
    shared = Freshness(
        (TagTier(re.compile("(latest|main)"), 30.0), TagTier(re.compile(r"v\d+"), 86400.0)),
        tag_ttl_s=0.0,
        revalidate_s=60.0,
        max_stale_s=7 * 86400.0,
        negative_ttl_s=2.5,
        access_ttl_s=90.0,
    )
    hub = config.upstreams["docker.io"]
    assert config.upstreams["ghcr.io"] == Upstream("ghcr.io", "https://ghcr.io", freshness=shared)
    assert (hub.url, hub.mirrors) == ("http://hub:5001", ("https://mirror.test", "http://second:1"))
    assert (hub.freshness.ttl_of("nightly"), hub.freshness.ttl_of("latest")) == (5.0, 3600.0)
    assert hub.freshness.max_stale_s == 7 * 86400.0
    assert hub.account == Account(Path("/etc/docker/config.json"), ("library", "org"))
    assert (hub.realm_hosts, hub.redirect_hosts) == ({"auth.test"}, {"10.0.0.8"})
    assert (config.default_upstream, config.hosted) == ("docker.io", ("team/cache", "cache"))
    assert (config.hosts, str(config.spool_dir)) == (("crossdock.ci.svc", "crossdock"), "/spool")
    assert (str(config.users_file), str(config.tokens_file)) == ("/etc/htpasswd", "/etc/tokens")
    assert config.tls == Tls(Path("/tls/crt"), Path("/tls/key"))
    assert config.disk_cache == DiskCache(Path("/disk"), 50 << 30)
    assert (config.log, config.drain_s) == (LogStyle("json", "warning"), 120.0)
    assert len(config.rules.rules) == 3


def test_a_file_says_the_same_as_the_command_line():
    said = {"upstream": ("a.test=http://a mirror=http://b mirror=http://c tag=v.*=1d",), "tag-ttl": ("5",)}
    file = '[upstream."a.test"]\nurl = "http://a"\nmirror = ["http://b", "http://c"]\ntag = ["v.*=1d"]\n'
    assert parse_toml(f"tag_ttl = 5\n{file}") == said
    assert (
        parse_toml('upstream = ["a.test=http://a mirror=http://b mirror=http://c tag=v.*=1d"]\ntag-ttl = "5"') == said
    )
    assert over({"listen": ("127.0.0.1:1",)}, {"listen": ("127.0.0.1:2",), "store": ("memory:",)}) == {
        "listen": ("127.0.0.1:1",),
        "store": ("memory:",),
    }


def test_upstreams_of_ones_own_leave_no_default_behind():
    assert make_config({"upstream": ("ghcr.io=https://ghcr.io",)}, STORE).default_upstream is None


def test_all_faults_are_named_at_once():
    values = {
        "listen": ("nowhere",),
        "upstream": (
            "a=ftp://a",
            "b=https://user:secret@b",
            "c=https://c/path",
            "no-url",
            "d=https://d",
            "d=https://e",
            "e=https://e mirror=https://user:secret@f colour=red account-prefix=x",
            "f=https://f account=/z",
        ),
        "default-upstream": ("zzz",),
        "hosted": ("UPPER",),
        "tag-ttl": ("soon",),
        "tag": ("([=1s",),
        "rule": ("ci cache/ fly",),
        "tls-cert": ("/x",),
        "users": ("/y",),
        "log-format": ("xml",),
        "disk-cache": ("/z",),
        "disk-cache-size": ("much",),
    }
    with pytest.raises(ConfigError) as caught:
        make_config(values, STORE)
    text = str(caught.value)
    expected = ("nowhere", "'a'", "'b'", "'c'", "'no-url'", "twice", "zzz", "UPPER", "tag-ttl", "regular expression")
    for part in (
        *expected,
        "mirror",
        "colour",
        "account-prefix without",
        "'fly'",
        "tls-key",
        "users or tokens",
        "'f': account",
        "xml",
        "'much'",
        "expected an s3:// store",
    ):
        assert part in text, part
    assert len(caught.value.problems) == 20
    assert "secret" not in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("listen =", "not TOML"),
        ('lisen = "x"', "unknown key 'lisen'"),
        ("listen = true", "expected HOST:PORT"),
        ("tag-ttl = true", "expected TIME"),
        ("upstream = [[1]]", "expected a list of texts"),
        ('listen = ["a", "b"]', "expected HOST:PORT"),
        ('[listen]\na = "b"', "expected HOST:PORT"),
        ('[upstream]\na = "b"', "expected a table"),
        ('[upstream.a]\nulr = "b"', "upstream 'a': unknown key 'ulr'"),
    ],
)
def test_a_file_with_a_fault(text: str, part: str):
    with pytest.raises(ConfigError, match=part):
        parse_toml(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("250ms", 0.25), ("10m", 600), ("12h", 43200), ("7d", 604800)]
)
def test_times(text: str, seconds: float):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "1 m", "1e3", "inf"])
def test_what_is_no_time(text: str):
    with pytest.raises(ValueError, match="is not a time"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("500000", 500_000), ("1.5MB", 1_500_000), ("50GB", 50 * 10**9), ("2TiB", 2 << 40)]
)
def test_sizes(text: str, size_bytes: int):
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "0", "GB", "-1", "1PB", "1 GB", "50gb"])
def test_what_is_no_size(text: str):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_a_disk_cache_needs_its_directory():
    with pytest.raises(ConfigError, match="disk-cache-size without"):
        make_config({"disk-cache-size": ("1GB",)}, STORE)


def test_options_have_one_name_each():
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_rights_add_up_and_end_at_a_component():
    rules = make_config({"rule": ("ci,bob cache/app read,write", "* cache read", "bob * fetch")}, STORE).rules
    assert rules.allow("ci", "cache/app", Right.WRITE)
    assert rules.allow("ci", "cache/app/x", Right.WRITE)
    assert not rules.allow("ci", "cache/apple", Right.WRITE)
    assert rules.allow("anonymous", "cache/apple", Right.READ)
    assert not rules.allow("anonymous", "cached", Right.READ)
    assert rules.allow("bob", "docker.io/library/x", Right.FETCH)
    assert not rules.allow("ci", "docker.io/library/x", Right.FETCH)


@pytest.mark.parametrize("text", ["ci cache", "ci cache read write", "c/i cache read", "ci cache reed", ""])
def test_what_is_no_rule(text: str):
    with pytest.raises(ValueError, match=r"expected|is not"):
        Rule.parse(text)
