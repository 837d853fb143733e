"""Credentials that the surroundings give, and for which registries they are meant."""

from __future__ import annotations

import json

import pytest
from moto.server import ThreadedMotoServer

from builder import push_cli
from cache.oci.ambient import AmbientCredentials
from cache.oci.credentials import ANONYMOUS, Credential, DockerConfig
from cache.oci.errors import InvalidCredentials
from cache.oci.registry_options import HELPERS
from tests.builder.servers import Web, serving

AMAZON = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
GITLAB = {"CI_REGISTRY": "r.gitlab.test:5050", "CI_REGISTRY_USER": "job", "CI_REGISTRY_PASSWORD": "pw"}
AZURE = {"AZURE_CLIENT_ID": "id", "AZURE_CLIENT_SECRET": "pw"}


def found(host: str, environ: dict[str, str], helpers: tuple[str, ...] = HELPERS) -> Credential:
    return AmbientCredentials(helpers, environ).credential_for(host)


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ("KANIKO_MY_HOST_EXAMPLE_COM", "my-host.example.com"),
        ("KANIKO_EXAMPLE_COM", "my-host.example.com:5000"),
        ("KANIKO_INDEX_DOCKER_IO", "docker.io"),
        ("KANIKO_IO", "docker.io"),
    ],
)
def test_variables_by_the_name_of_the_registry(variables, host):
    environ = {f"{variables}_USER": "me", f"{variables}_PASSWORD": "pw", "KANIKO_HOST_USER": "x"}
    assert found(host, environ) == Credential("me", "pw")
    assert found("other.test", environ) == ANONYMOUS
    assert found(host, environ, ("gitlab",)) == ANONYMOUS
    assert "pw" not in repr(AmbientCredentials(HELPERS, environ))


def test_what_a_job_of_gitlab_and_a_service_principal_have():
    assert found("r.gitlab.test", GITLAB) == found("r.gitlab.test:5050", GITLAB) == Credential("job", "pw")
    assert found("evil-r.gitlab.test", GITLAB) == ANONYMOUS
    assert found("team.azurecr.io", AZURE) == Credential("id", "pw")
    for host in ("azurecr.io", "team.azurecr.io.evil.test", "team.azurecr.io:443"):
        assert found(host, AZURE) == ANONYMOUS


async def test_a_token_of_google_for_its_own_registries_inside_a_loop(tmp_path):
    with serving(Web()) as web:
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        web.answer(path, (200, {}, b'{"access_token": "t"}'))
        environ = {"HOME": str(tmp_path), "GCE_METADATA_HOST": web.url.removeprefix("http://")}
        for host in ("gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"):
            assert found(host, environ) == Credential("oauth2accesstoken", "t")
        assert len(web.asked) == 3
        for host in ("gcr.io.evil.test", "evilgcr.io", "pkg.dev"):
            assert found(host, environ) == ANONYMOUS
        assert len(web.asked) == 3


def test_a_token_of_amazon_for_its_own_registries(monkeypatch, tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://{host}:{port}")
    try:
        assert found(AMAZON, {}) == ANONYMOUS
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        credential = found(AMAZON, {})
        assert credential.username == "AWS"
        assert credential.password
        assert found(f"{AMAZON}.evil.test", {}) == ANONYMOUS
    finally:
        server.stop()
    with pytest.raises(InvalidCredentials, match=f"AWS gives no token for {AMAZON}: EndpointConnectionError"):
        found(AMAZON, {})


def test_what_is_configured_comes_first_and_the_variable_before_the_file(tmp_path):
    def auths(host: str, username: str) -> str:
        return json.dumps({"auths": {host: {"username": username, "password": "pw"}}})

    (tmp_path / "podman.json").write_text(auths("r.test/team", "podman"))
    environ = {"REGISTRY_AUTH_FILE": str(tmp_path / "podman.json"), "DOCKER_AUTH_CONFIG": auths("q.test", "variable")}
    ambient = AmbientCredentials(HELPERS, {"KANIKO_TEST_USER": "ambient", "KANIKO_TEST_PASSWORD": "pw"})
    config = DockerConfig.load(environ, tmp_path, ambient.credential_for)
    asked = ("q.test", "a"), ("r.test", "team/a"), ("r.test", "a"), ("other.test", "a")
    assert [config.credential_for(*name).username for name in asked] == ["variable", "podman", "ambient", "ambient"]
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(auths("r.test", "docker"))
    config = DockerConfig.load(environ, tmp_path)
    assert [config.credential_for(*name).username for name in asked] == ["variable", "docker", "docker", ""]
    with pytest.raises(InvalidCredentials, match=r"DOCKER_AUTH_CONFIG is not a docker config\.json"):
        DockerConfig.load({"DOCKER_AUTH_CONFIG": "{"}, tmp_path)


def test_a_push_with_them_and_without(private_registry, busybox_layout, monkeypatch, capsys):
    monkeypatch.setenv("KANIKO_127_0_0_1_USER", private_registry.username)
    monkeypatch.setenv("KANIKO_127_0_0_1_PASSWORD", private_registry.password)
    image = [str(busybox_layout), f"-d={private_registry.host}/app:1"]
    assert push_cli.main([*image, "--credential-helpers="]) == 1
    assert "401" in capsys.readouterr().err
    assert push_cli.main([*image, "--credential-helpers=gitlab", "--credential-helpers=env"]) == 0
    assert push_cli.main([*image, "--credential-helpers=vault"]) == 2
    assert "expected one of env, google, ecr, acr, gitlab" in capsys.readouterr().err
