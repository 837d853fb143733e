"""The proxy as an aiohttp application: routes, middlewares and the life of what it uses."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from cache.entry import LOOKUP_PATH
from cache.oci.transport import Transport
from cache.store import Store
from proxy.auth.hosts import KnownHosts
from proxy.auth.identity import TOKEN_PATH
from proxy.certificate import Certificate
from proxy.cluster.fills import FILLS_PATH
from proxy.cluster.gate import ReplicaGate, replicas_only
from proxy.config import Patience, ProxyConfig
from proxy.requests.handlers import Endpoints
from proxy.requests.middleware import RequestWatch, answer_errors, refuse_unknown_hosts
from proxy.services import Services, make_services

HEADER_BYTES = 64 * 1024
CUT_S = 0.5
"""How long what is cut short may take to notice."""


def make_app(services: Services) -> web.Application:
    """The application that answers with these services."""
    endpoints = Endpoints(services)
    watch = RequestWatch(services.metrics, services.drain)
    known = functools.lru_cache(maxsize=1)(_known_hosts)  # asked for every request, made anew when it changes
    check_host = refuse_unknown_hosts(lambda: known(services.config.hosts, services.config.replica_url))
    gate = ReplicaGate(services.replicas)
    app = web.Application(middlewares=[watch.handle, answer_errors, gate.know, check_host])
    app.on_response_prepare.append(watch.prepare)
    app.on_response_prepare.append(gate.prepare)
    app.router.add_get("/", endpoints.status)
    app.router.add_get("/healthz", endpoints.health)
    app.router.add_get("/readyz", endpoints.ready)
    app.router.add_get("/metrics", endpoints.metrics)
    app.router.add_get(TOKEN_PATH, endpoints.token)
    app.router.add_post(TOKEN_PATH, endpoints.token)
    app.router.add_post(LOOKUP_PATH, endpoints.lookup)
    app.router.add_get(FILLS_PATH + "{digest}", replicas_only(services.replicas, endpoints.fill))
    app.router.add_route("*", "/v2{rest:(?:/.*)?}", endpoints.registry)
    return app


def _known_hosts(configured: tuple[str, ...], replica_url: str | None) -> KnownHosts:
    """What the proxy is called: as configured, as the machine calls itself (also without its domain), by replicas."""
    machine = socket.gethostname().lower()
    replica = {URL(replica_url).host or ""} if replica_url is not None else set()
    return KnownHosts(frozenset({*configured, machine, machine.partition(".")[0], *replica}))


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that listens on ``port``."""

    services: Services
    site: web.TCPSite
    port: int
    certificate: Certificate | None

    async def change(self, config: ProxyConfig) -> tuple[str, ...]:
        """Puts another configuration in force for new requests, and returns the options that differ.

        What runs goes on. Raises ConfigError; then all is as it was.
        """
        changed = await self.services.change(config)
        if self.certificate is not None and config.tls is not None:
            await asyncio.to_thread(self.certificate.refresh, config.tls)
        return changed

    async def drain(self) -> None:
        """Returns when what runs has ended, or the configured time is over; new connections come to an end before.

        Where there are other replicas they go on to the end: uploads that are under way here come from there too.
        """
        drain, limit_s = self.services.drain, self.services.config.drain_s
        drain.draining = True
        await self.services.maintenance.close()
        balancer_s = drain.balancer_s(limit_s)
        await asyncio.sleep(balancer_s)
        if self.services.replicas.alone:
            await self.site.stop()
        await drain.idle(self.services.uploads.__len__, limit_s - balancer_s)


def _transport(patience: Patience) -> Transport:
    return Transport(
        connect_timeout_s=patience.connect_s, reply_timeout_s=patience.reply_s, read_timeout_s=patience.silence_s
    )


@asynccontextmanager
async def serve(
    config: ProxyConfig, store: Store, environ: Mapping[str, str] | None = None
) -> AsyncIterator[RunningProxy]:
    """Serves until the context ends. Credential helpers are started with ``environ``.

    Raises OSError when the address cannot be had, ConfigError when files that the configuration names cannot be used,
    CacheError when the replicas' key cannot be had from the store.
    """
    async with _transport(config.patience) as transport, _certificate(config) as certificate:
        services = make_services(config, store, transport, environ or {})
        # Long tokens come in headers; handlers are not cancelled when a client leaves, the work may be others' too.
        runner = web.AppRunner(
            make_app(services),
            access_log=None,
            handler_cancellation=False,
            shutdown_timeout=CUT_S,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            auto_decompress=False,  # what is pushed is stored as it came
        )
        await runner.setup()
        try:
            await services.open()
            site = web.TCPSite(
                runner,
                config.host or None,
                config.port,
                backlog=1024,
                ssl_context=certificate.context if certificate else None,
            )
            await site.start()
            yield RunningProxy(services, site, runner.addresses[0][1], certificate)
        finally:
            await services.close()
            await runner.cleanup()


@asynccontextmanager
async def _certificate(config: ProxyConfig) -> AsyncIterator[Certificate | None]:
    """What to serve HTTPS with, kept up to date; None for plain HTTP."""
    if config.tls is None:
        yield None
        return
    certificate = Certificate(config.tls)
    watcher = asyncio.create_task(certificate.watch())
    try:
        yield certificate
    finally:
        watcher.cancel()
