"""``crossdock proxy``: reads the options, opens the store, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import structlog

from cache.errors import CacheError
from cache.store import Store
from cache.stores import open_store
from proxy.app import serve
from proxy.config import ProxyConfig
from proxy.errors import ConfigError
from proxy.log import configure_logging
from proxy.options import OPTIONS, Values, over, parse_toml
from proxy.settings import make_config

log = structlog.get_logger()


@click.command(
    name="crossdock proxy",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        *(click.Option([f"--{o.name}"], metavar=o.metavar, multiple=o.many, help=o.help) for o in OPTIONS),
        click.Option(
            ["--config", "config_file"], metavar="FILE", help="A TOML file with these options by these names."
        ),
    ],
)
def command(config_file: str | None, **options: str | tuple[str, ...] | None) -> None:
    """Serve the registry proxy: a pull-through cache, a push proxy and hosted cache repositories."""
    values = _said(options)
    if config_file is not None:
        values = over(values, parse_toml(_read_config(Path(config_file))))
    asyncio.run(_serve(make_config(values, _default_store())))


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
    configure_logging(sys.stderr)
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


def _default_store() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(cache) / "crossdock").absolute().as_uri()


def _open_store(url: str) -> Store:
    try:
        return open_store(url, os.environ)
    except ValueError as error:
        raise ConfigError([f"store: {error}"]) from error


async def _serve(config: ProxyConfig) -> None:
    store = _open_store(config.store_url)
    try:
        await store.check()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            async with serve(config, store) as port:
                _announce(config, store.url, port)
                await stop.wait()
                log.info("proxy_stopping")
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {config.host}:{config.port}: {os.strerror(error.errno or 0)}"
            ) from error
    finally:
        await store.close()


def _announce(config: ProxyConfig, store_url: str, port: int) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host or "0.0.0.0"  # noqa: S104 - only says what is so
    behind = ", ".join(config.upstreams) or "no upstream"
    scheme = "https" if config.tls is not None else "http"
    print(
        f"Crossdock proxy listening on {scheme}://{host}:{port} (store {store_url}; in front of {behind})", flush=True
    )
