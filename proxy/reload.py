"""The configuration in force, and what may change in it while the proxy runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.config import ProxyConfig
from proxy.errors import ConfigError

OPTIONS: Mapping[str, Callable[[ProxyConfig], object]] = {
    "listen": lambda config: (config.host, config.port),
    "store": lambda config: config.store_url,
    "upstream": lambda config: config.upstreams,
    "default-upstream": lambda config: config.default_upstream,
    "hosted": lambda config: config.hosted,
    "first-writer": lambda config: config.first_writer,
    "fall-through": lambda config: config.fall_throughs,
    "spool-dir": lambda config: config.spool_dir,
    "disk-cache": lambda config: config.disk_cache and config.disk_cache.directory,
    "disk-cache-size": lambda config: config.disk_cache and config.disk_cache.size_bytes,
    "host": lambda config: config.hosts,
    "users": lambda config: config.users_file,
    "tokens": lambda config: config.tokens_file,
    "rule": lambda config: config.rules,
    "tls-cert": lambda config: config.tls and config.tls.certificate,
    "tls-key": lambda config: config.tls and config.tls.key,
    "replica-url": lambda config: config.replica_url,
    "drain": lambda config: config.drain_s,
    "redirect-network": lambda config: config.redirection.networks,
    "redirect-size": lambda config: config.redirection.size_bytes,
    "maintenance-interval": lambda config: config.maintenance_interval_s,
    "retain": lambda config: config.retentions,
    "gc-grace": lambda config: config.gc_grace_s,
    "gc-rate": lambda config: config.gc_requests_per_second,
    "scrub-rate": lambda config: config.scrub_bytes_per_second,
    "log-format": lambda config: config.log.form,
    "log-level": lambda config: config.log.level,
}
"""What each option has set; how fresh tags are is a part of each upstream."""
_FIXED = frozenset({"listen", "store", "spool-dir", "disk-cache", "disk-cache-size", "replica-url"})


class Configuration:
    """Holds the configuration in force; whoever needs it asks for each request."""

    def __init__(self, config: ProxyConfig) -> None:
        self.current = config

    def change(self, config: ProxyConfig) -> tuple[str, ...]:
        """Puts another configuration in force, and returns the options that differ.

        Raises ConfigError when only a restart could bring it about; the old one stays in force then.
        """
        changed = changed_options(self.current, config)
        if problems := restart_problems(self.current, config):
            raise ConfigError(problems)
        self.current = config
        return changed


def changed_options(old: ProxyConfig, new: ProxyConfig) -> tuple[str, ...]:
    """The options whose values differ, by name."""
    return tuple(name for name, value in OPTIONS.items() if value(old) != value(new))


def restart_problems(old: ProxyConfig, new: ProxyConfig) -> list[str]:
    """What differs and cannot change while the proxy runs; empty when all of it can."""
    problems = [f"{name} changed: that needs a restart" for name in changed_options(old, new) if name in _FIXED]
    if (old.tls is None) != (new.tls is None):
        problems.append("tls-cert was added or removed: that needs a restart")
    return problems
