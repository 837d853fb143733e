"""What the proxy is told: frozen values, checked as a whole, every fault named at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cache.oci.errors import InvalidReference
from cache.oci.reference import DOCKER_HUB, canonical_host, check_repository
from proxy.errors import ConfigError

DOCKER_HUB_URL = "https://registry-1.docker.io"
_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[0-9]{1,5})?")
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]*):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry that we stand in front of. ``url`` begins with https:// or, for plain HTTP, with http://."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The whole configuration.

    ``default_upstream`` names the upstream of requests that name none (None = such requests find nothing);
    ``hosted`` are the first path components, or longer prefixes, whose repositories live only here; ``tag_ttl_s`` is
    how long a tag is trusted before the upstream is asked again, and ``access_ttl_s`` how long it is remembered that
    somebody may read a repository.
    """

    host: str
    port: int
    store_url: str
    upstreams: Mapping[str, Upstream]
    default_upstream: str | None
    hosted: tuple[str, ...]
    tag_ttl_s: float
    access_ttl_s: float
    spool_dir: Path | None


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What a command line or a file says; None = not said."""

    listen: str | None = None
    store: str | None = None
    upstream: Sequence[str] | None = None
    default_upstream: str | None = None
    hosted: Sequence[str] | None = None
    tag_ttl: float | None = None
    access_ttl: float | None = None
    spool_dir: str | None = None

    def over(self, other: ProxyOptions) -> ProxyOptions:
        """These options, and those of ``other`` where these say nothing."""
        chosen = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(other, name)
            for name in _OPTION_TYPES
        }
        return ProxyOptions(**chosen)


_OPTION_TYPES: Mapping[str, tuple[type, ...]] = {
    "listen": (str,),
    "store": (str,),
    "upstream": (list,),
    "default_upstream": (str,),
    "hosted": (list,),
    "tag_ttl": (int, float),
    "access_ttl": (int, float),
    "spool_dir": (str,),
}


def parse_toml(text: str) -> ProxyOptions:
    """The options of a configuration file: the command line's long names, with ``_`` or ``-``.

    Raises ConfigError for TOML that cannot be read, and for keys and types that are not ours.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"the file is not TOML: {error}"]) from error
    values: dict[str, Any] = {}
    problems = []
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in _OPTION_TYPES:
            problems.append(f"unknown key {key!r}: expected one of {', '.join(_OPTION_TYPES)}")
        elif not _has_type(value, _OPTION_TYPES[name]):
            expected = " or ".join(kind.__name__ for kind in _OPTION_TYPES[name])
            problems.append(f"{key} is {value!r}: expected {expected}{' of text' if expected == 'list' else ''}")
        else:
            values[name] = value
    if problems:
        raise ConfigError(problems)
    return ProxyOptions(**values)


def _has_type(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, list):
        return list in kinds and all(isinstance(item, str) for item in value)
    return isinstance(value, kinds)


def make_config(options: ProxyOptions, default_store: str) -> ProxyConfig:
    """The configuration that the options ask for, with defaults for what they do not say.

    Without any ``upstream`` that is Docker Hub, which is then the default upstream as well. Raises ConfigError.
    """
    problems: list[str] = []
    host, port = _parse_listen(options.listen or "127.0.0.1:5000", problems)
    upstreams = _parse_upstreams(options.upstream, problems)
    config = ProxyConfig(
        host=host,
        port=port,
        store_url=options.store or default_store,
        upstreams=upstreams,
        default_upstream=_choose_default(options, upstreams, problems),
        hosted=_parse_hosted(options.hosted, problems),
        tag_ttl_s=_parse_seconds("tag-ttl", options.tag_ttl, problems),
        access_ttl_s=_parse_seconds("access-ttl", options.access_ttl, problems),
        spool_dir=Path(options.spool_dir) if options.spool_dir else None,
    )
    if problems:
        raise ConfigError(problems)
    return config


def _parse_listen(text: str, problems: list[str]) -> tuple[str, int]:
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        problems.append(f"listen is {text!r}: expected HOST:PORT, for example 127.0.0.1:5000")
        return "", 0
    return match["host"].strip("[]"), int(match["port"])


def _parse_upstreams(items: Sequence[str] | None, problems: list[str]) -> dict[str, Upstream]:
    if items is None:
        return {DOCKER_HUB: Upstream(DOCKER_HUB, DOCKER_HUB_URL)}
    upstreams: dict[str, Upstream] = {}
    for item in items:
        name, _, url = item.partition("=")
        name = canonical_host(name)
        fault = _upstream_fault(name, url)
        if fault is None and name in upstreams:
            fault = "it is there twice"
        if fault is not None:
            problems.append(f"upstream {name!r}: {fault}")
        upstreams[name] = Upstream(name, url.rstrip("/"))
    return upstreams


def _upstream_fault(name: str, url: str) -> str | None:
    """What is wrong with an upstream, without ever repeating a URL that may hold a password."""
    if not _NAME.fullmatch(name):
        return "expected NAME=URL with a host name, in lower case, as NAME"
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


def _choose_default(options: ProxyOptions, upstreams: Mapping[str, Upstream], problems: list[str]) -> str | None:
    if options.default_upstream is None:
        return DOCKER_HUB if options.upstream is None else None
    name = canonical_host(options.default_upstream)
    if name not in upstreams:
        problems.append(f"default-upstream is {name!r}, which is no upstream: expected one of {', '.join(upstreams)}")
    return name


def _parse_hosted(items: Sequence[str] | None, problems: list[str]) -> tuple[str, ...]:
    prefixes = []
    for item in ("cache",) if items is None else items:
        try:
            prefixes.append(check_repository(item.strip("/")))
        except InvalidReference as error:
            problems.append(f"hosted prefix: {error}")
    return tuple(prefixes)


def _parse_seconds(name: str, value: float | None, problems: list[str]) -> float:
    seconds = 60.0 if value is None else float(value)
    if not 0 <= seconds <= 86400 * 365:
        problems.append(f"{name} is {value}: expected a number of seconds, not negative")
    return seconds
