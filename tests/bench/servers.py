"""The servers that are compared: each gives the same repository, from the same registry behind it or from itself."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import Registry, free_port, start_registry
from tests.programs import proxy_command, start_program

NGINX = """\
daemon off;
pid {tmp}/pid;
user root;
worker_processes auto;
events {{ worker_connections 4096; }}
http {{
  access_log {tmp}/access.log;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  client_body_temp_path {tmp}/body;
  proxy_temp_path {tmp}/temp;
  fastcgi_temp_path {tmp}/fastcgi;
  uwsgi_temp_path {tmp}/uwsgi;
  scgi_temp_path {tmp}/scgi;
  proxy_cache_path {tmp}/cache levels=1:2 keys_zone=registry:10m max_size=50g use_temp_path=off;
  upstream registry {{ server {upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location /v2/ {{
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_request_buffering off;
      proxy_cache registry;
      proxy_cache_valid 200 10m;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 10m;
      proxy_cache_lock_age 10m;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Running:
    """A server at work."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """The processor time that it has used, in all its processes."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Lets the highest use of memory be counted from now (proc_pid_clear_refs(5))."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """The most memory that it has had resident, in all its processes."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self._pids()]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in texts)

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]


def start_usual_registry(tmp: Path, **more: Any) -> AbstractContextManager[Registry]:
    """A docker-registry with its cache in memory, as Debian's own configuration has it."""
    storage = {"cache": {"blobdescriptor": "inmemory"}, "filesystem": {"rootdirectory": str(tmp / "data")}}
    return start_registry(tmp, extra={"storage": storage, **more})


class Server(ABC):
    """A way to serve a registry's content. ``caches``: what it serves comes from the registry behind it at first."""

    title: str
    caches = True
    forwards_pushes = True

    @abstractmethod
    @contextmanager
    def running(self, tmp: Path, behind: Registry) -> Iterator[Running]:
        """The server with nothing in its cache, in front of ``behind``."""


class CrossdockProxy(Server):
    """Our proxy as a user starts it, its log (JSON) in a file."""

    title = "Crossdock"

    @contextmanager
    def running(self, tmp: Path, behind: Registry) -> Iterator[Running]:
        tmp.mkdir(parents=True)
        port = free_port()
        options = (f"--upstream=bench.test={behind.url}", "--default-upstream=bench.test", f"--spool-dir={tmp}")
        with start_program(proxy_command(tmp, port, *options), port, tmp / "proxy.log") as process:
            yield Running(f"127.0.0.1:{port}", process.pid)


class Direct(Server):
    """The registry behind the others, asked itself."""

    title = "docker-registry"
    caches = False

    @contextmanager
    def running(self, tmp: Path, behind: Registry) -> Iterator[Running]:
        yield Running(behind.host, behind.pid)


class PullThrough(Server):
    """docker-registry as a pull-through cache, which refuses pushes."""

    title = "docker-registry, pull-through"
    forwards_pushes = False

    @contextmanager
    def running(self, tmp: Path, behind: Registry) -> Iterator[Running]:
        with start_usual_registry(tmp, proxy={"remoteurl": behind.url}) as registry:
            yield Running(registry.host, registry.pid)


class Nginx(Server):
    """nginx with proxy_cache, which believes tags for ten minutes and asks nobody who may read."""

    title = "nginx proxy_cache"

    @contextmanager
    def running(self, tmp: Path, behind: Registry) -> Iterator[Running]:
        tmp.mkdir(parents=True)
        port = free_port()
        config = tmp / "nginx.conf"
        config.write_text(NGINX.format(tmp=tmp, upstream=behind.host, port=port))
        command = ("nginx", "-c", str(config), "-e", str(tmp / "error.log"))
        with start_program(command, port, tmp / "nginx.log") as process:
            yield Running(f"127.0.0.1:{port}", process.pid)


SERVERS: tuple[Server, ...] = (CrossdockProxy(), Direct(), PullThrough(), Nginx())
