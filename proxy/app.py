"""The proxy as an aiohttp application: routes, middlewares and the life of what it uses."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from cache.entry import LOOKUP_PATH
from cache.oci.transport import Transport
from cache.store import Store
from proxy.certificate import Certificate
from proxy.config import ProxyConfig
from proxy.handlers import Endpoints
from proxy.hosts import KnownHosts
from proxy.identity import TOKEN_PATH
from proxy.middleware import answer_errors, log_requests, refuse_unknown_hosts
from proxy.services import Services, make_services

HEADER_BYTES = 64 * 1024
SHUTDOWN_S = 10.0


def make_app(services: Services) -> web.Application:
    """The application that answers with these services."""
    endpoints = Endpoints(services)
    app = web.Application(
        middlewares=[log_requests, answer_errors, refuse_unknown_hosts(_known_hosts(services.config))]
    )
    app.router.add_get("/healthz", endpoints.health)
    app.router.add_get("/readyz", endpoints.ready)
    app.router.add_get(TOKEN_PATH, endpoints.token)
    app.router.add_post(TOKEN_PATH, endpoints.token)
    app.router.add_post(LOOKUP_PATH, endpoints.lookup)
    app.router.add_route("*", "/v2{rest:(?:/.*)?}", endpoints.registry)
    return app


def _known_hosts(config: ProxyConfig) -> KnownHosts:
    """What the proxy is called: as configured, and as the machine calls itself, with and without its domain."""
    machine = socket.gethostname().lower()
    return KnownHosts(frozenset({*config.hosts, machine, machine.partition(".")[0]}))


@asynccontextmanager
async def serve(config: ProxyConfig, store: Store) -> AsyncIterator[int]:
    """Serves until the context ends; gives the port that it listens on.

    Raises OSError when that cannot be had, ConfigError when files that the configuration names cannot be used.
    """
    async with Transport() as transport, _certificate(config) as tls:
        services = make_services(config, store, transport)
        # Long tokens come in headers; handlers are not cancelled when a client leaves, the work may be others' too.
        runner = web.AppRunner(
            make_app(services),
            access_log=None,
            handler_cancellation=False,
            shutdown_timeout=SHUTDOWN_S,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            auto_decompress=False,  # what is pushed is stored as it came
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, config.host or None, config.port, backlog=1024, ssl_context=tls)
            await site.start()
            yield runner.addresses[0][1]
        finally:
            await services.close()
            await runner.cleanup()


@asynccontextmanager
async def _certificate(config: ProxyConfig) -> AsyncIterator[ssl.SSLContext | None]:
    """What to serve HTTPS with, kept up to date; None for plain HTTP."""
    if config.tls is None:
        yield None
        return
    certificate = Certificate(config.tls)
    watcher = asyncio.create_task(certificate.watch())
    try:
        yield certificate.context
    finally:
        watcher.cancel()
