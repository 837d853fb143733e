"""Servers on 127.0.0.1 that builds fetch from: files by HTTP, a repository by git's own daemon."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.building import write_files
from tests.peers import free_port


class Web:
    """Answers by path; ``asked`` has what came, with the Authorization header. ``when_asked`` is called before."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.when_asked: Callable[[], None] = lambda: None
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append((self.path, self.headers.get("Authorization")))
                web.headers.append(dict(self.headers))
                web.when_asked()
                listed = web.answers.get(self.path.partition("?")[0], [(404, {}, b"")])
                status, headers, body = listed.pop(0) if len(listed) > 1 else listed[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server.server_port}"
        self.other_host_url = f"http://localhost:{self.server.server_port}"

    def answer(self, path: str, *answers: tuple[int, dict[str, str], bytes]) -> str:
        self.answers[path] = list(answers)
        return self.url + path


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    """The server while the block runs."""
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        thread.join()
        web.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as web:
        yield web


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The URL of a repository with a tag, a branch and a directory, served by git's own daemon."""
    served = tmp_path / "served"
    work = served / "repo"
    write_files(work, {"top": "1\n", "sub/file": "f\n"})
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path)}

    def git(*arguments: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *author, "-C", str(work), *arguments], check=True, capture_output=True, env=environ)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("tag", "-a", "v1", "-m", "v1")
    (work / "top").write_text("2\n")
    git("commit", "--quiet", "-a", "-m", "second")
    port = free_port()
    daemon = subprocess.Popen(
        [
            "git",
            "daemon",
            "--reuseaddr",
            "--listen=127.0.0.1",
            f"--port={port}",
            "--export-all",
            f"--base-path={served}",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
    )
    url = f"git://127.0.0.1:{port}/repo"
    for _ in range(200):
        if subprocess.run(["git", "ls-remote", url], capture_output=True, check=False).returncode == 0:
            break
    yield url
    daemon.terminate()
    daemon.communicate(timeout=10)
