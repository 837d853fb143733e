"""What the proxy is told, as frozen values; ``proxy.settings`` makes them from the command line and a file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.oci.retry import Backoff
from cache.upkeep.retention import Retention
from proxy.auth.rights import Rules
from proxy.hosting.fall_through import FallThrough
from proxy.upstream.circuit import Pace

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class TagTier:
    """Tags that match ``pattern`` as a whole are trusted for ``ttl_s`` seconds."""

    pattern: re.Pattern[str]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long what an upstream said is trusted.

    ``tiers`` are tried in order, ``tag_ttl_s`` is for tags that match none. Past that a tag is served for
    ``revalidate_s`` more while the upstream is asked in the background (stale-while-revalidate), and for
    ``max_stale_s`` more when the upstream fails (stale-if-error). "Not there" is remembered for ``negative_ttl_s``, and
    that somebody may read a repository for ``access_ttl_s``.
    """

    tiers: tuple[TagTier, ...] = ()
    tag_ttl_s: float = 60.0
    revalidate_s: float = 0.0
    max_stale_s: float = DAY_S
    negative_ttl_s: float = 5.0
    access_ttl_s: float = 60.0

    def ttl_of(self, tag: str) -> float:
        """How many seconds the tag is trusted."""
        for tier in self.tiers:
            if tier.pattern.fullmatch(tag):
                return tier.ttl_s
        return self.tag_ttl_s


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the proxy's own at an upstream, used for reading repositories under ``prefixes`` ("" = all).

    ``config_path`` is a docker ``config.json`` that holds it, or names the credential helper that gives it.
    """

    config_path: Path
    prefixes: tuple[str, ...] = ("",)

    def covers(self, repository: str) -> bool:
        """True when the repository is read with this account."""
        return any(not prefix or f"{repository}/".startswith(f"{prefix}/") for prefix in self.prefixes)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry that we stand in front of. ``url`` begins with https:// or, for plain HTTP, with http://.

    ``mirrors`` are the URLs of registries with the same content, asked first, in order, by their anonymous users.
    ``realm_hosts`` are hosts of token servers that are trusted beside the registry's own domain, ``redirect_hosts``
    those in private networks that a public registry may send us to.
    """

    name: str
    url: str
    mirrors: tuple[str, ...] = ()
    freshness: Freshness = field(default_factory=Freshness)
    account: Account | None = None
    realm_hosts: frozenset[str] = frozenset()
    redirect_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of the certificate chain and its key, in PEM; read anew when they change."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class LogStyle:
    """``form`` is ``json`` or ``text``, None = text on a terminal, JSON elsewhere; ``level`` is structlog's name."""

    form: str | None = None
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the proxy waits for upstreams, in seconds: short, since clients wait meanwhile.

    ``connect_s`` for a connection, ``reply_s`` for the head of a reply to a read, ``silence_s`` within a body;
    ``backoff`` between tries (``push_backoff`` of pushes), ``pace`` before one that failed is asked again at all.
    """

    connect_s: float = 5.0
    reply_s: float = 10.0
    silence_s: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(tries=3, first_s=0.2, factor=3.0, limit_s=2.0))
    push_backoff: Backoff = field(default_factory=lambda: Backoff(tries=5, first_s=0.2, factor=3.0, limit_s=30.0))
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class DiskCache:
    """A directory that holds at most ``size_bytes`` of what is read from a slower store."""

    directory: Path
    size_bytes: int = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Redirection:
    """Clients of these ``networks`` fetch blobs of ``size_bytes`` and more from the bucket itself; none = nobody."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    size_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The whole configuration.

    ``default_upstream`` names the upstream of requests that name none (None = such requests find nothing); ``hosted``
    are the first path components, or longer prefixes, whose repositories live only here; by ``fall_throughs`` some read
    from others. ``hosts`` are names that clients may call the proxy by, beside its addresses and the machine's own
    name. ``users_file`` is an htpasswd file, ``tokens_file`` holds ``name:token`` lines. ``replica_url`` is where the
    other replicas of a cluster reach this one. Once told to stop, the proxy lets what it serves end for ``drain_s``
    seconds. The store is looked after every ``maintenance_interval_s`` (0 = never), and blobs are read at
    ``scrub_bytes_per_second`` to see whether they are whole (0 = not at all). With ``retentions`` what they do not keep
    goes, and what nothing leads to after ``gc_grace_s``; for that the store gets ``gc_requests_per_second`` at the most
    (0 = no limit). ``patience`` has no option.
    """

    host: str
    port: int
    store_url: str
    upstreams: Mapping[str, Upstream]
    default_upstream: str | None
    hosted: tuple[str, ...]
    first_writer: tuple[str, ...] = ()
    fall_throughs: tuple[FallThrough, ...] = ()
    spool_dir: Path | None = None
    disk_cache: DiskCache | None = None
    redirection: Redirection = field(default_factory=Redirection)
    hosts: tuple[str, ...] = ()
    users_file: Path | None = None
    tokens_file: Path | None = None
    rules: Rules = field(default_factory=Rules)
    tls: Tls | None = None
    log: LogStyle = field(default_factory=LogStyle)
    replica_url: str | None = None
    drain_s: float = 30.0
    maintenance_interval_s: float = 3600.0
    retentions: tuple[Retention, ...] = ()
    gc_grace_s: float = 86_400.0
    gc_requests_per_second: int = 500
    scrub_bytes_per_second: int = 5_000_000
    patience: Patience = field(default_factory=Patience)
