"""What ``--print-client-config`` prints: it parses, it says where the proxy is, and the clients come to it."""

from __future__ import annotations

import json
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cache.oci.reference import DOCKER_HUB
from proxy.config import ProxyConfig, Tls, Upstream
from proxy.errors import ConfigError
from proxy.observe.client_config import CLIENTS, print_client_config
from tests.peers import Registry
from tests.programs import CROSSDOCK, start_proxy
from tests.proxy.clients import layout_manifest, make_layout, seed
from tests.proxy.running import UPSTREAM, client_of, make_image, push, run

UPSTREAMS = ("docker.io", "ghcr.io", "registry.test:5001")
CONFIG = ProxyConfig(
    host="0.0.0.0",
    port=5000,
    store_url="memory:",
    upstreams={name: Upstream(name, f"https://{name}") for name in UPSTREAMS},
    default_upstream="docker.io",
    hosted=("cache",),
)
TLS = replace(CONFIG, tls=Tls(Path("c"), Path("k")), hosts=("proxy.test", "other"))


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def files(text: str) -> dict[str, str]:
    """Each file of the containerd output by the path in the line before it."""
    parts = re.split(r"^# (/\S+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    ("config", "url"), [(CONFIG, "http://machine:5000"), (TLS, "https://proxy.test:5000")], ids=["http", "https"]
)
def test_containerd(config: ProxyConfig, url: str):
    found = files(print_client_config("containerd", config, "machine"))
    assert list(found) == [f"/etc/containerd/certs.d/{name}/hosts.toml" for name in UPSTREAMS]
    assert tomllib.loads(found["/etc/containerd/certs.d/ghcr.io/hosts.toml"]) == {
        "server": "https://ghcr.io",
        "host": {url: {"capabilities": ["pull", "resolve"]}},
    }


@pytest.mark.parametrize(
    ("config", "daemon"),
    [
        (CONFIG, {"registry-mirrors": ["http://machine:5000"], "insecure-registries": ["machine:5000"]}),
        (TLS, {"registry-mirrors": ["https://proxy.test:5000"]}),
        (replace(CONFIG, default_upstream="ghcr.io"), {"insecure-registries": ["machine:5000"]}),
    ],
)
def test_docker(config: ProxyConfig, daemon: dict[str, list[str]]):
    assert json.loads(without_comments(print_client_config("docker", config, "machine"))) == daemon


@pytest.mark.parametrize(("config", "proxy", "http"), [(CONFIG, "machine:5000", True), (TLS, "proxy.test:5000", False)])
def test_buildkit(config: ProxyConfig, proxy: str, http: bool):
    mirrored = {name: {"mirrors": [proxy]} for name in UPSTREAMS}
    found = tomllib.loads(print_client_config("buildkit", config, "machine"))
    assert found == {"registry": {**mirrored, proxy: {"http": http}}}


@pytest.mark.parametrize(("config", "proxy", "http"), [(CONFIG, "machine:5000", True), (TLS, "proxy.test:5000", False)])
def test_podman(config: ProxyConfig, proxy: str, http: bool):
    found = tomllib.loads(print_client_config("podman", config, "machine"))["registry"]
    mirrors = [{"location": f"{proxy}/ghcr.io", "insecure": http}]
    assert found[1] == {"prefix": "ghcr.io", "location": "ghcr.io", "mirror": mirrors}
    assert found[2:] == [{"location": proxy, "insecure": http}]  # a name with a port can be no part of a repository's


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (CONFIG, ["--registry-mirror=machine:5000", "--registry-map=ghcr.io=machine:5000/ghcr.io"]),
        (
            replace(CONFIG, default_upstream=None),
            ["--registry-map=index.docker.io=machine:5000/docker.io", "--registry-map=ghcr.io=machine:5000/ghcr.io"],
        ),
    ],
)
def test_kaniko(config: ProxyConfig, flags: list[str]):
    said = without_comments(print_client_config("kaniko", config, "machine")).split()
    assert said == [*flags, "--cache-repo=machine:5000/cache/NAME", "--insecure-registry=machine:5000"]
    assert not any(part.startswith("--insecure") for part in print_client_config("kaniko", TLS, "machine").split())


@pytest.mark.parametrize(
    ("host", "hosts", "authority"),
    [
        ("127.0.0.1", (), "127.0.0.1:5000"),
        ("::1", (), "[::1]:5000"),
        ("::", (), "machine:5000"),
        ("", ("a",), "a:5000"),
    ],
)
def test_where_the_proxy_is(host: str, hosts: tuple[str, ...], authority: str):
    said = print_client_config("kaniko", replace(CONFIG, host=host, hosts=hosts), "machine")
    assert f"--insecure-registry={authority}\n" in said


@pytest.mark.parametrize("client", CLIENTS)
def test_a_port_that_nobody_knows_yet(client: str):
    with pytest.raises(ConfigError, match="port 0"):
        print_client_config(client, replace(CONFIG, port=0), "machine")


def printed(client: str, proxy: str, *options: str) -> str:
    command = [*CROSSDOCK, "proxy", "--listen", proxy, *options, "--print-client-config", client]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.peers
async def test_podman_and_skopeo_pull_with_what_is_printed(
    registry: Registry, storage: tuple[str, ...], tmp_path: Path
):
    layout = make_layout(tmp_path)
    await seed(layout, registry, "library/there:1")
    await seed(layout, registry, "org/app:1")
    options = [part for name in (DOCKER_HUB, UPSTREAM) for part in ("--upstream", f"{name}={registry.url}")]
    with start_proxy(tmp_path / "proxy", *options) as proxy:
        conf = tmp_path / "registries.conf"
        conf.write_text(printed("podman", proxy, *options))
        skopeo = ("skopeo", "--registries-conf", str(conf), "copy")
        environment = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
        for name in ("docker.io/library/there:1", f"{UPSTREAM}/org/app:1"):
            await run("podman", *storage, "pull", "--quiet", name, env=environment)
            await run(*skopeo, f"docker://{name}", f"dir:{tmp_path}/pulled")
            assert (tmp_path / "pulled" / "manifest.json").read_bytes() == layout_manifest(layout).raw
        await run(*skopeo, f"dir:{tmp_path}/pulled", f"docker://{proxy}/cache/app:1")


@pytest.mark.peers
async def test_containerd_pulls_with_what_is_printed(registry: Registry, tmp_path: Path):
    """It says ``?ns=``, so the same address serves an upstream that is not the default one."""
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    options = ("--upstream", "docker.io=http://127.0.0.1:1", "--upstream", f"{UPSTREAM}={registry.url}")
    with start_proxy(tmp_path / "proxy", *options) as proxy, containerd(tmp_path) as address:
        for path, text in files(printed("containerd", proxy, *options)).items():
            file = tmp_path / path.removeprefix("/etc/containerd/")
            file.parent.mkdir(parents=True)
            file.write_text(text)
        directory = str(tmp_path / "certs.d")
        await run("ctr", "--address", address, "content", "fetch", "--hosts-dir", directory, f"{UPSTREAM}/org/app:1")
        held = await run("ctr", "--address", address, "content", "ls", "--quiet")
    assert {str(image.manifest.digest), *map(str, image.blobs)} <= set(held.split())


@contextmanager
def containerd(tmp: Path) -> Iterator[str]:
    """A containerd of its own; gives its socket."""
    config, address, log = tmp / "containerd.toml", tmp / "socket", tmp / "containerd.log"
    disabled = '["io.containerd.grpc.v1.cri"]'
    config.write_text(f'version = 2\nroot = "{tmp}/root"\nstate = "{tmp}/state"\ndisabled_plugins = {disabled}\n')
    with log.open("wb") as sink:
        command = ["containerd", "--config", str(config), "--address", str(address)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + 20
        while b"successfully booted" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield str(address)
    finally:
        process.terminate()
        process.wait(20)
