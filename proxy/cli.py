"""``crossdock proxy``: reads the options, opens the store, serves until it is told to stop.

SIGHUP: reads the configuration again. SIGTERM and SIGINT: end what runs, then stop; a second one: stop now.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import structlog

from cache.disk.tier import DiskTier
from cache.errors import CacheError
from cache.store import Store
from cache.stores import default_url, open_store
from proxy.app import RunningProxy, serve
from proxy.check import file_problems
from proxy.config import LogStyle, ProxyConfig
from proxy.errors import ConfigError
from proxy.observe.client_config import CLIENTS, print_client_config
from proxy.observe.log import configure_logging
from proxy.options import OPTIONS, Values, over, parse_toml
from proxy.settings import make_config
from proxy.summary import summarize

log = structlog.get_logger()


@click.command(
    name="crossdock proxy",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        *(click.Option([f"--{o.name}"], metavar=o.metavar, multiple=o.many, help=o.help) for o in OPTIONS),
        click.Option(
            ["--config", "config_file"], metavar="FILE", help="A TOML file with these options by these names."
        ),
        click.Option(["--check-config"], is_flag=True, help="Say whether the configuration can be used, and end."),
        click.Option(
            ["--print-client-config", "client"],
            type=click.Choice(list(CLIENTS)),
            help="Say what to tell this client so that it uses the proxy, and end.",
        ),
    ],
)
def command(
    config_file: str | None, check_config: bool, client: str | None, **options: str | tuple[str, ...] | None
) -> None:
    """Serve the registry proxy: a pull-through cache, a push proxy and hosted cache repositories."""
    said = _said(options)

    file = Path(config_file) if config_file is not None else None

    def load() -> ProxyConfig:
        return _load(said, file)

    if client is not None:
        print(print_client_config(client, _configured(said, file), socket.gethostname()), end="")
        return
    config = load()
    if check_config:
        _open_store(config)  # reads and writes nothing
        print("\n".join(("ok", *summarize(config))))
        return
    configure_logging(sys.stderr, config.log)
    asyncio.run(_serve(config, load))


def _load(said: Values, config_file: Path | None) -> ProxyConfig:
    """The configuration as the command line and the files say it now. Raises ConfigError."""
    config = _configured(said, config_file)
    if problems := file_problems(config):
        raise ConfigError(problems)
    return config


def _configured(said: Values, config_file: Path | None) -> ProxyConfig:
    """The configuration, before the files that it names have been looked at. Raises ConfigError."""
    values = over(said, parse_toml(_read_config(config_file))) if config_file is not None else said
    return make_config(values, default_url(os.environ))


def _said(options: Mapping[str, str | tuple[str, ...] | None]) -> Values:
    """What the command line says, by the options' names."""
    return {
        name.replace("_", "-"): (value,) if isinstance(value, str) else value
        for name, value in options.items()
        if value
    }


def main(argv: Sequence[str]) -> int:
    """Runs ``crossdock proxy`` with these arguments and returns its exit status: 2 for a configuration that is wrong,
    1 for what the machine refuses."""
    configure_logging(sys.stderr, LogStyle())
    try:
        command.main(args=list(argv), prog_name="crossdock proxy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except ConfigError as error:
        return _fail(str(error), 2)
    except CacheError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(str(error.strerror or error), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(message: str, status: int) -> int:
    print(f"crossdock proxy: {message}", file=sys.stderr)
    return status


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"{path} cannot be read: {reason}"]) from error


def _open_store(config: ProxyConfig) -> Store:
    cache = config.disk_cache
    disk = None if cache is None else DiskTier(cache.directory, cache.size_bytes)
    try:
        return open_store(config.store_url, os.environ, spool_dir=config.spool_dir, disk=disk)
    except ValueError as error:
        raise ConfigError([f"store: {error}"]) from error


async def _serve(config: ProxyConfig, load: Callable[[], ProxyConfig]) -> None:
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    store = _open_store(config)
    try:
        await store.check()
        try:
            async with serve(config, store, os.environ) as proxy:
                _announce(config, store.url, proxy.port)
                await _obey(told, proxy, load)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {config.host}:{config.port}: {os.strerror(error.errno or 0)}"
            ) from error
    finally:
        await store.close()


async def _obey(told: asyncio.Queue[signal.Signals], proxy: RunningProxy, load: Callable[[], ProxyConfig]) -> None:
    """Returns when the proxy is to stop now."""
    while await told.get() is signal.SIGHUP:
        await _reload(proxy, load)
    log.info("proxy_draining", drain_s=proxy.services.config.drain_s)
    ended, again = asyncio.create_task(proxy.drain()), asyncio.create_task(_told_to_stop(told))
    _, running = await asyncio.wait((ended, again), return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    log.info("proxy_stopping", cut_short=proxy.services.drain.requests)


async def _told_to_stop(told: asyncio.Queue[signal.Signals]) -> None:
    while await told.get() is signal.SIGHUP:
        log.warning("config_refused", problems=["the proxy is about to stop"])


async def _reload(proxy: RunningProxy, load: Callable[[], ProxyConfig]) -> None:
    """Puts the configuration in force as it is said now; one with faults is logged, and the old one stays."""
    try:
        config = await asyncio.to_thread(load)
        changed = await proxy.change(config)
    except ConfigError as error:
        log.error("config_refused", problems=error.problems)
        return
    configure_logging(sys.stderr, config.log)
    log.info("config_reloaded", changed=changed)


def _announce(config: ProxyConfig, store_url: str, port: int) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host or "0.0.0.0"  # noqa: S104 - only says what is so
    behind = ", ".join(config.upstreams) or "no upstream"
    scheme = "https" if config.tls is not None else "http"
    print(
        f"Crossdock proxy listening on {scheme}://{host}:{port} (store {store_url}; in front of {behind})", flush=True
    )
