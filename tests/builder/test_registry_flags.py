"""How registries are reached, by the flags of every command that talks to one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from builder import push_cli
from cache.oci.peers import open_peers
from cache.oci.registry_options import RegistryOptions
from tests.fakes.registry import fake_registry
from tests.integration.building import Builder, write_files
from tests.peers import Registry, free_port, start_registry
from tests.s3_servers import make_certificate


@pytest.fixture
def mutual(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a certificate of no known authority, which wants to be shown one of the same."""
    make_certificate(tmp_path)
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    tls = {"certificate": certificate, "key": key, "clientcas": [certificate]}
    with start_registry(tmp_path / "registry", tls=tls) as started:
        yield started


def test_certificates_of_a_registry_and_for_it(tmp_path, mutual, busybox_layout, capsys):
    image, files = f"{mutual.host}/app:1", f"{tmp_path}/cert.pem,{tmp_path}/key.pem"
    authority, client = f"--registry-certificate={mutual.host}={tmp_path}/cert.pem", f"{mutual.host}={files}"

    def push(*flags: str) -> int:
        return push_cli.main([str(busybox_layout), f"--destination={image}", *flags])

    assert push(f"--registry-client-cert={client}") == 1
    assert "its TLS certificate cannot be trusted" in capsys.readouterr().err
    assert push(authority) == 1
    assert push(authority, f"--registry-client-cert={client}") == 0
    assert push(f"--skip-tls-verify-registry={mutual.host}", f"--registry-client-cert={client}") == 0
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM {image}\nCOPY Dockerfile /\n"})
    given = (context, f"-d={mutual.host}/built:1", authority, f"--registry-client-cert={client}")
    Builder(tmp_path / "home").must(*given)
    shown = ("--cert-dir", str(_certificates_for_skopeo(tmp_path)))
    command = ["skopeo", "inspect", *shown, "--format={{len .Layers}}", f"docker://{mutual.host}/built:1"]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "2\n"


def test_a_registry_behind_an_http_proxy(registry, busybox_layout, monkeypatch, capsys):
    """The registry stands in for its proxy: it takes the same requests, and its name leads nowhere else."""
    pushed = [str(busybox_layout), "-d=r.test/app:1", "--insecure-registry=r.test"]
    monkeypatch.setenv("HTTP_PROXY", registry.url)
    assert push_cli.main(pushed) == 0
    assert registry.count("PUT", "/v2/app/manifests/1") == 1
    monkeypatch.setenv("HTTP_PROXY", f"http://user:s3cret@127.0.0.1:{free_port()}")
    assert push_cli.main(pushed) == 1
    said = capsys.readouterr().err
    assert "cannot connect to the HTTP proxy 127.0.0.1:" in said
    assert "s3cret" not in said
    monkeypatch.setenv("NO_PROXY", "other.test,.test")
    assert push_cli.main(pushed) == 1
    assert "the host name r.test cannot be resolved" in capsys.readouterr().err


async def test_who_builds_is_told_to_registries():
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with fake_registry(answer) as fake:
        environ = {"HOME": "/nonexistent", "UPSTREAM_CLIENT_TYPE": "pipeline"}
        async with open_peers(RegistryOptions(), environ) as peers:
            await peers.pull.client(fake.url.removeprefix("http://")).ping()
    assert fake.seen[0].headers["User-Agent"] == "crossdock,pipeline"


def test_a_credential_for_a_part_of_a_registry(tmp_path, private_registry):
    entry = {"username": private_registry.username, "password": private_registry.password}
    auths = {f"{private_registry.host}/team": entry, private_registry.host: {"username": "other", "password": "no"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    context = write_files(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    builder = Builder(tmp_path / "home", {"DOCKER_CONFIG": str(tmp_path)})
    cached = (context, "--cache", f"--cache-repo={private_registry.host}/team/cache")
    assert "could not be saved" not in builder.must(*cached, f"-d={private_registry.host}/team/app:1").output
    assert "cannot push to" in builder.build(*cached, f"-d={private_registry.host}/app:1").output


def _certificates_for_skopeo(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    for name, source in {"ca.crt": "cert.pem", "client.cert": "cert.pem", "client.key": "key.pem"}.items():
        (folder / name).write_bytes((tmp_path / source).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("flag", "status", "message"),
    [
        (
            "--registry-certificate=r.test=/no/such",
            1,
            "the certificate /no/such for r.test cannot be used: No such file",
        ),
        (
            "--registry-client-cert=r.test=/a,/b",
            1,
            "the client certificate /a with the key /b for r.test cannot be used",
        ),
        ("--registry-certificate=/ca.pem", 2, "--registry-certificate '/ca.pem': expected HOST[:PORT]=FILE"),
        ("--registry-client-cert=r.test=/a", 2, "expected HOST[:PORT]=CERTIFICATE,KEY"),
    ],
)
def test_certificates_that_cannot_be_used(busybox_layout, capsys, flag, status, message):
    assert push_cli.main([str(busybox_layout), "--destination=r.test/a:1", flag]) == status
    assert message in capsys.readouterr().err
