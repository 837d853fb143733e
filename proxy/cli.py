"""``crossdock proxy``: reads the options, opens the store, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import structlog

from cache.errors import CacheError
from cache.store import Store
from cache.stores import open_store
from proxy.app import serve
from proxy.config import ProxyConfig, ProxyOptions, make_config, parse_toml
from proxy.errors import ConfigError
from proxy.log import configure_logging

log = structlog.get_logger()


@click.command(
    name="crossdock proxy", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one. [127.0.0.1:5000]")
@click.option(
    "--store", metavar="URL", help="file:///path, s3://bucket/prefix or memory:. [the user's cache directory]"
)
@click.option("--upstream", metavar="NAME=URL", multiple=True, help="A registry to stand in front of. [docker.io]")
@click.option("--default-upstream", metavar="NAME", help="The upstream of names that begin with none. [docker.io]")
@click.option("--hosted", metavar="PREFIX", multiple=True, help="Repositories that live only here. [cache]")
@click.option("--tag-ttl", metavar="SECONDS", type=float, help="How long a tag is trusted. [60]")
@click.option("--access-ttl", metavar="SECONDS", type=float, help="How long a permission is remembered. [60]")
@click.option("--spool-dir", metavar="DIR", help="Where blobs grow while they are fetched. [the temporary directory]")
@click.option("--config", "config_file", metavar="FILE", help="A TOML file with these options under the same names.")
def command(config_file: str | None, **options: str | float | tuple[str, ...] | None) -> None:
    """Serve the registry proxy: a pull-through cache, a push proxy and hosted cache repositories."""
    said = {name: list(value) or None if isinstance(value, tuple) else value for name, value in options.items()}
    chosen = ProxyOptions(**said)  # type: ignore[arg-type] # click has checked each option's type
    if config_file is not None:
        chosen = chosen.over(parse_toml(_read_config(Path(config_file))))
    asyncio.run(_serve(make_config(chosen, _default_store())))


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
    print(f"Crossdock proxy listening on http://{host}:{port} (store {store_url}; in front of {behind})", flush=True)
