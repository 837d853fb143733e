from __future__ import annotations

import pytest

from proxy.config import ProxyOptions, Upstream, make_config, parse_toml
from proxy.errors import ConfigError

STORE = "file:///tmp/store"


def test_nothing_said_is_a_working_proxy_of_docker_hub():
    config = make_config(ProxyOptions(), STORE)
    assert (config.host, config.port, config.store_url) == ("127.0.0.1", 5000, STORE)
    assert config.upstreams == {"docker.io": Upstream("docker.io", "https://registry-1.docker.io")}
    assert (config.default_upstream, config.hosted) == ("docker.io", ("cache",))
    assert (config.tag_ttl_s, config.access_ttl_s, config.spool_dir) == (60.0, 60.0, None)


def test_everything_can_be_said():
    options = ProxyOptions(
        listen="[::1]:0",
        store="memory:",
        upstream=["GHCR.io=https://ghcr.io/", "index.docker.io=http://hub:5001"],
        default_upstream="docker.io",
        hosted=["/team/cache/", "cache"],
        tag_ttl=0,
        access_ttl=1.5,
        spool_dir="/spool",
    )
    config = make_config(options, STORE)
    assert (config.host, config.port, config.store_url) == ("::1", 0, "memory:")
    assert [(u.name, u.url) for u in config.upstreams.values()] == [
        ("ghcr.io", "https://ghcr.io"),
        ("docker.io", "http://hub:5001"),
    ]
    assert (config.default_upstream, config.hosted) == ("docker.io", ("team/cache", "cache"))
    assert (config.tag_ttl_s, config.access_ttl_s, str(config.spool_dir)) == (0.0, 1.5, "/spool")


def test_upstreams_of_ones_own_leave_no_default_behind():
    config = make_config(ProxyOptions(upstream=["ghcr.io=https://ghcr.io"]), STORE)
    assert config.default_upstream is None


def test_all_faults_are_named_at_once():
    options = ProxyOptions(
        listen="nowhere",
        upstream=["a=ftp://a", "b=https://user:secret@b", "c=https://c/path", "no-url", "d=https://d", "d=https://e"],
        default_upstream="zzz",
        hosted=["UPPER"],
        tag_ttl=-1,
    )
    with pytest.raises(ConfigError) as caught:
        make_config(options, STORE)
    text = str(caught.value)
    assert len(caught.value.problems) == 9
    for part in ("nowhere", "'a'", "'b'", "'c'", "'no-url'", "twice", "zzz", "UPPER", "tag-ttl"):
        assert part in text
    assert "secret" not in text


def test_a_file_says_the_same_as_the_command_line():
    text = 'listen = "0.0.0.0:80"\nupstream = ["a.test=http://a"]\ndefault-upstream = "a.test"\ntag_ttl = 5\n'
    options = parse_toml(text)
    assert options == ProxyOptions(
        listen="0.0.0.0:80", upstream=["a.test=http://a"], default_upstream="a.test", tag_ttl=5
    )
    assert ProxyOptions(listen="127.0.0.1:1").over(options).listen == "127.0.0.1:1"
    assert ProxyOptions(listen="127.0.0.1:1").over(options).tag_ttl == 5


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("listen =", "not TOML"),
        ('lisen = "x"', "unknown key 'lisen'"),
        ("listen = 5000", "expected str"),
        ("tag-ttl = true", "expected int or float"),
        ("upstream = [1]", "expected list of text"),
        ('[listen]\na = "b"', "expected str"),
    ],
)
def test_a_file_with_a_fault(text: str, part: str):
    with pytest.raises(ConfigError, match=part):
        parse_toml(text)
