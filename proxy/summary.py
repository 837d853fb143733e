"""A configuration in a few lines for a person. Says no secret: a configuration holds none, only the names of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from proxy.auth.rights import ANYBODY, Right, Rule
from proxy.config import Freshness, ProxyConfig, Upstream


def summarize(config: ProxyConfig) -> Iterator[str]:
    """The lines."""
    scheme = "https" if config.tls is not None else "http"
    yield f"listen {scheme}://{config.host}:{config.port}, store {config.store_url}"
    for upstream in config.upstreams.values():
        default = " (default)" if upstream.name == config.default_upstream else ""
        yield f"upstream {upstream.name}{default}: {upstream.url}{_settings(upstream)}"
    if config.replica_url is not None:
        yield f"replica at {config.replica_url}"
    if config.hosted:
        yield f"hosted {', '.join(config.hosted)}"
    for through in config.fall_throughs:
        yield f"{through.narrow} reads from {through.wide} too"
    for rule in config.rules.rules:
        yield f"rule {_rule(rule)}"
    if not config.rules.rules:
        yield "no rule: everybody may everything that the upstreams let them"


def _settings(upstream: Upstream) -> str:
    said = [f"mirror {mirror}" for mirror in upstream.mirrors]
    if upstream.account is not None:
        prefixes = ", ".join(prefix or "all" for prefix in upstream.account.prefixes)
        said.append(f"account {upstream.account.config_path} for {prefixes}")
    unset = Freshness()
    said += [
        f"{field.name.removesuffix('_s').replace('_', '-')} {getattr(upstream.freshness, field.name):g}s"
        for field in fields(Freshness)
        if field.name != "tiers" and getattr(upstream.freshness, field.name) != getattr(unset, field.name)
    ]
    said += [f"tag {tier.pattern.pattern} {tier.ttl_s:g}s" for tier in upstream.freshness.tiers]
    return "".join(f"; {part}" for part in said)


def _rule(rule: Rule) -> str:
    rights = "all" if rule.rights == frozenset(Right) else ",".join(r.value for r in Right if r in rule.rights)
    return f"{','.join(sorted(rule.who))} {rule.prefix or ANYBODY} {rights}"
