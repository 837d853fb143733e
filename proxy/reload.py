"""The configuration in force, and what may change in it while the proxy runs."""

from __future__ import annotations

from dataclasses import fields

from proxy.config import ProxyConfig
from proxy.errors import ConfigError

_OPTIONS = {
    "host": "listen",
    "port": "listen",
    "store_url": "store",
    "default_upstream": "default-upstream",
    "upstreams": "upstream",
    "spool_dir": "spool-dir",
    "disk_cache": "disk-cache",
    "hosts": "host",
    "users_file": "users",
    "tokens_file": "tokens",
    "rules": "rule",
    "drain_s": "drain",
}
"""Options by the fields that they set; the others have the field's name."""
_FIXED = frozenset({"listen", "store", "spool-dir", "disk-cache"})


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
    differing = [field.name for field in fields(ProxyConfig) if getattr(old, field.name) != getattr(new, field.name)]
    return tuple(dict.fromkeys(_OPTIONS.get(name, name) for name in differing))


def restart_problems(old: ProxyConfig, new: ProxyConfig) -> list[str]:
    """What differs and cannot change while the proxy runs; empty when all of it can."""
    problems = [f"{name} changed: that needs a restart" for name in changed_options(old, new) if name in _FIXED]
    if (old.tls is None) != (new.tls is None):
        problems.append("tls-cert was added or removed: that needs a restart")
    return problems
