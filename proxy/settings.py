"""What was said (``proxy.options``) becomes a checked configuration; all faults are named at once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from cache.oci.reference import DOCKER_HUB, canonical_host, check_repository
from cache.units import parse_bytes, parse_seconds
from cache.upkeep.retention import GRACE_S, Retention, check_grace
from proxy.auth.rights import Rule, Rules
from proxy.config import Account, DiskCache, Freshness, LogStyle, ProxyConfig, Redirection, TagTier, Tls, Upstream
from proxy.errors import ConfigError
from proxy.hosting.fall_through import FallThrough, fall_through_problems
from proxy.options import UPSTREAM_SETTINGS, Values, over

DOCKER_HUB_URL = "https://registry-1.docker.io"
_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[0-9]{1,5})?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]+\]?")
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]*):(?P<port>[0-9]{1,5})")
_TIMES = {
    "tag-ttl": "tag_ttl_s",
    "revalidate": "revalidate_s",
    "max-stale": "max_stale_s",
    "negative-ttl": "negative_ttl_s",
    "access-ttl": "access_ttl_s",
}
_LEVELS = ("debug", "info", "warning", "error")

T = TypeVar("T")


def make_config(values: Values, default_store: str) -> ProxyConfig:
    """The configuration that the values ask for, with defaults for what they do not say.

    Without any ``upstream`` that is Docker Hub, which is then the default upstream as well. Raises ConfigError.
    """
    read = _Reader(values)
    host, port = read.one("listen", _listen, ("127.0.0.1", 5000))
    upstreams = _upstreams(values, read.problems)
    config = ProxyConfig(
        host=host,
        port=port,
        store_url=read.one("store", str, default_store),
        upstreams=upstreams,
        default_upstream=_default_upstream(values, upstreams, read.problems),
        hosted=read.many("hosted", _prefix, ("cache",)),
        first_writer=read.many("first-writer", _prefix),
        fall_throughs=read.many("fall-through", FallThrough.parse),
        spool_dir=read.one("spool-dir", Path, None),
        disk_cache=_disk_cache(read),
        redirection=_redirection(read),
        hosts=read.many("host", _host),
        users_file=read.one("users", Path, None),
        tokens_file=read.one("tokens", Path, None),
        rules=Rules(read.many("rule", Rule.parse)),
        tls=_tls(read),
        log=LogStyle(
            read.one("log-format", _one_of("json", "text"), None), read.one("log-level", _one_of(*_LEVELS), "info")
        ),
        replica_url=read.one("replica-url", _root_url, None),
        drain_s=read.one("drain", parse_seconds, 30.0),
        maintenance_interval_s=read.one("maintenance-interval", parse_seconds, 3600.0),
        retentions=read.many("retain", Retention.parse),
        gc_grace_s=read.one("gc-grace", _grace, GRACE_S),
        gc_requests_per_second=read.one("gc-rate", _count, 500),
        scrub_bytes_per_second=read.one("scrub-rate", _rate, 5_000_000),
    )
    read.problems += fall_through_problems(config.fall_throughs, config.hosted)
    if not config.rules.rules:
        read.problems += _unruled(config)
    if read.problems:
        raise ConfigError(read.problems)
    return config


def _unruled(config: ProxyConfig) -> list[str]:
    """What must not be without rules, under which everybody may do everything."""
    problems = []
    if config.users_file or config.tokens_file:
        problems.append("users or tokens without any rule: expected a rule that says what they may do")
    problems += [
        f"upstream {name!r}: account without any rule: expected a rule that says who may read with it"
        for name, upstream in config.upstreams.items()
        if upstream.account is not None
    ]
    return problems


class _Reader:
    """Turns texts into values, and collects what is wrong with them."""

    def __init__(self, values: Values, where: str = "") -> None:
        self._values = values
        self._where = where
        self.problems: list[str] = []

    def one(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The value of an option that is given once."""
        texts = self._values.get(name)
        if not texts:
            return default
        if len(texts) > 1:
            self.problems.append(f"{self._where}{name} is there {len(texts)} times: expected it once")
        found = self._parse(name, parse, texts[-1:])
        return found[0] if found else default

    def many(self, name: str, parse: Callable[[str], T], default: tuple[T, ...] = ()) -> tuple[T, ...]:
        """The values of an option that may be given several times."""
        texts = self._values.get(name)
        return default if texts is None else self._parse(name, parse, texts)

    def _parse(self, name: str, parse: Callable[[str], T], texts: tuple[str, ...]) -> tuple[T, ...]:
        found = []
        for text in texts:
            try:
                found.append(parse(text))
            except ValueError as error:
                self.problems.append(f"{self._where}{name}: {error}")
        return tuple(found)


def _grace(text: str) -> float:
    return check_grace(parse_seconds(text))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number: expected 0 or more")
    return int(text)


def _rate(text: str) -> int:
    return 0 if text.strip() == "0" else parse_bytes(text)


def _listen(text: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r}: expected HOST:PORT, for example 127.0.0.1:5000")
    return match["host"].strip("[]"), int(match["port"])


def _prefix(text: str) -> str:
    return check_repository(text.strip("/"))


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is not a host name: expected one without port and scheme")
    return text.strip("[]").lower()


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network: expected one like 10.0.0.0/8 or fd00::/8") from error


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r}: expected {' or '.join(choices)}")
        return text

    return parse


def _disk_cache(read: _Reader) -> DiskCache | None:
    directory, size_bytes = read.one("disk-cache", Path, None), read.one("disk-cache-size", parse_bytes, None)
    if directory is None:
        if size_bytes is not None:
            read.problems.append("disk-cache-size without disk-cache: expected a directory")
        return None
    if not read.one("store", str, "").startswith("s3://"):
        read.problems.append("disk-cache without a store in a bucket: expected an s3:// store")
    return DiskCache(directory) if size_bytes is None else DiskCache(directory, size_bytes)


def _redirection(read: _Reader) -> Redirection:
    networks, size_bytes = read.many("redirect-network", _network), read.one("redirect-size", parse_bytes, None)
    if size_bytes is not None and not networks:
        read.problems.append("redirect-size without redirect-network: expected the network of who is redirected")
    if networks and not read.one("store", str, "").startswith("s3://"):
        read.problems.append("redirect-network without a store in a bucket: expected an s3:// store")
    return Redirection(networks) if size_bytes is None else Redirection(networks, size_bytes)


def _tls(read: _Reader) -> Tls | None:
    certificate, key = read.one("tls-cert", Path, None), read.one("tls-key", Path, None)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        read.problems.append(f"tls-{'key' if key is None else 'cert'} is missing: expected both or neither")
        return None
    return Tls(certificate, key)


def _upstreams(values: Values, problems: list[str]) -> dict[str, Upstream]:
    shared = {name: texts for name, texts in values.items() if name in _TIMES or name == "tag"}
    _, faults = _freshness(shared, "")
    problems += faults
    upstreams: dict[str, Upstream] = {}
    for text in values.get("upstream", (f"{DOCKER_HUB}={DOCKER_HUB_URL}",)):
        upstream = _upstream(text, {} if faults else shared, problems)
        if upstream.name in upstreams:
            problems.append(f"upstream {upstream.name!r}: it is there twice")
        upstreams[upstream.name] = upstream
    return upstreams


def _upstream(text: str, shared: Values, problems: list[str]) -> Upstream:
    """One upstream, written ``NAME=URL [SETTING=VALUE ...]``; never repeats a URL, which may hold a password."""
    first, *rest = text.split() or [""]
    name, _, url = first.partition("=")
    name = canonical_host(name)
    where = f"upstream {name!r}: "
    said = _settings(rest, where, problems)
    fault = (
        "expected NAME=URL with a host name, in lower case, as NAME" if not _NAME.fullmatch(name) else url_fault(url)
    )
    if fault is not None:
        problems.append(where + fault)
    read = _Reader(said, where)
    mirrors = read.many("mirror", _root_url)
    account = read.one("account", Path, None)
    prefixes = read.many("account-prefix", _prefix, ("",))
    realms, redirects = read.many("realm-host", _host), read.many("redirect-host", _host)
    freshness, faults = _freshness(over(said, shared), where)
    problems += [*read.problems, *faults]
    if account is None and "account-prefix" in said:
        problems.append(f"{where}account-prefix without account")
    return Upstream(
        name=name,
        url=url.rstrip("/"),
        mirrors=mirrors,
        freshness=freshness,
        account=Account(account, prefixes) if account else None,
        realm_hosts=frozenset(realms),
        redirect_hosts=frozenset(redirects),
    )


def _settings(parts: list[str], where: str, problems: list[str]) -> Values:
    known = [option.name for option in UPSTREAM_SETTINGS if option.name != "url"]
    said: dict[str, tuple[str, ...]] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            problems.append(f"{where}unknown setting {key!r}: expected {', '.join(known)} with =VALUE")
        else:
            said[key] = (*said.get(key, ()), value)
    return said


def _freshness(values: Values, where: str) -> tuple[Freshness, list[str]]:
    read = _Reader(values, where)
    tiers = read.many("tag", _tier)
    unset = Freshness()
    times = {field: read.one(name, parse_seconds, getattr(unset, field)) for name, field in _TIMES.items()}
    return Freshness(tiers, **times), read.problems


def _tier(text: str) -> TagTier:
    pattern, equals, time = text.rpartition("=")
    if not equals or not pattern:
        raise ValueError(f"{text!r}: expected REGEXP=TIME, for example '(latest|main)=30s'")
    try:
        return TagTier(re.compile(pattern), parse_seconds(time))
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error


def _root_url(url: str) -> str:
    if (fault := url_fault(url)) is not None:
        raise ValueError(fault)
    return url.rstrip("/")


def url_fault(url: str) -> str | None:
    """What is wrong with a registry's URL, without ever repeating it: it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "its URL cannot be read"
    if "@" in parts.netloc:
        return "its URL must not carry credentials: clients bring their own"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "expected NAME=URL with an http:// or https:// URL"
    if parts.query or parts.fragment or parts.path.rstrip("/"):
        return "its URL must be a registry's root, with neither path nor query"
    return None


def _default_upstream(values: Values, upstreams: dict[str, Upstream], problems: list[str]) -> str | None:
    said = values.get("default-upstream")
    if not said:
        return DOCKER_HUB if "upstream" not in values else None
    name = canonical_host(said[-1])
    if name not in upstreams:
        problems.append(f"default-upstream is {name!r}, which is no upstream: expected one of {', '.join(upstreams)}")
    return name
