"""Git repositories on 127.0.0.1, served by git's own programs: over smart HTTP with a password, and by a real sshd."""

from __future__ import annotations

import base64
import os
import pwd
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.integration.building import write_files
from tests.peers import free_port, wait_for_port

LOGIN = "user:sesame"
_CONFIG = {
    "user.name": "a",
    "user.email": "a@example.com",
    "init.defaultBranch": "main",
    "protocol.file.allow": "always",
}


def git(directory: Path, *arguments: str) -> str:
    """What git prints in a repository, as somebody whose own settings do not count."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
    settings = (word for name, value in _CONFIG.items() for word in ("-c", f"{name}={value}"))
    command = ["git", *settings, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout.strip()


def make_repository(
    directory: Path, files: Mapping[str, str], submodules: Mapping[str, tuple[Path, str]] | None = None
) -> Path:
    """A repository of one commit; ``submodules`` are by their path: where they are now, and the URL that is noted."""
    write_files(directory, files)
    git(directory, "init", "--quiet")
    for path, (place, url) in (submodules or {}).items():
        git(directory, "submodule", "--quiet", "add", str(place), path)
        git(directory, "config", "--file", ".gitmodules", f"submodule.{path}.url", url)
    git(directory, "add", ".")
    git(directory, "commit", "--quiet", "-m", "made")
    return directory


@dataclass
class GitOverHttp:
    """`git http-backend` behind a password; ``asked`` are the Host and the Authorization of every request."""

    root: Path
    url: str = ""
    other_host_url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def git_over_http(root: Path) -> Iterator[GitOverHttp]:
    """Serves all repositories below ``root``."""
    served = GitOverHttp(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            served.asked.append((self.headers["Host"].partition(":")[0], given))
            if given != f"Basic {base64.b64encode(LOGIN.encode()).decode()}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            path, _, query = self.path.partition("?")
            environ = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=False)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url, served.other_host_url = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Sshd:
    """A running sshd that lets this user in by a key that an agent holds."""

    port: int
    user: str
    known_hosts: Path
    agent: Path


@contextmanager
def sshd(directory: Path) -> Iterator[Sshd]:
    """OpenSSH's server and agent, with keys of their own."""
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(command, check=True, timeout=30)
    port = free_port()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {(directory / 'host_key.pub').read_text()}")
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host_key\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/user_key.pub\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it wants to live between privileges
    agent = directory / "agent.sock"
    log = directory / "log"
    with log.open("wb") as out:
        processes = [
            subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "sshd_config")], stderr=out),
            subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=out, stderr=out),
        ]
        try:
            wait_for_port(port, processes[0], log)
            while not agent.exists():
                assert processes[1].poll() is None, log.read_text()
            environ = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(agent)}
            subprocess.run(["ssh-add", "-q", str(directory / "user_key")], env=environ, check=True, timeout=30)
            yield Sshd(port, pwd.getpwuid(os.getuid()).pw_name, directory / "known_hosts", agent)
        finally:
            for process in processes:
                process.terminate()
                process.wait(10)
