"""docker's config.json: whose credential is shown to whom, and what a broken one says."""

import base64
import json
import os
from pathlib import Path

import pytest

from cache.oci.credentials import ANONYMOUS, Credential, DockerConfig
from cache.oci.errors import InvalidCredentials


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def config(**sections: object) -> DockerConfig:
    return DockerConfig.parse(json.dumps(sections).encode(), Path("config.json"), {"PATH": "/nowhere"})


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def with_helper(tmp_path: Path, script: str, **sections: object) -> DockerConfig:
    helper(tmp_path, "test", script)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return DockerConfig.parse(json.dumps(sections).encode(), Path("config.json"), environ)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "index.docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://registry.test:5000/v2/", "registry.test:5000"),
        ("Registry.Test", "registry.test"),
    ],
)
def test_a_host_is_found_in_every_spelling_of_its_key(key, host):
    assert config(auths={key: auth("me", "p:w")}).credential_for(host, "a/b") == Credential("me", "p:w")


@pytest.mark.parametrize(
    ("key", "host"), [("ghcr.io", "evil-ghcr.io"), ("a.test", "a.test:5000"), ("a.test", "b.a.test")]
)
def test_other_hosts_get_nothing(key, host):
    assert config(auths={key: auth("me", "pw")}).credential_for(host, "a/b") == ANONYMOUS


def test_the_longest_path_that_covers_the_repository_wins():
    read = config(auths={"r.test": auth("all", "1"), "r.test/team": auth("team", "2"), "r.test/team/x": auth("x", "3")})
    names = ("other", "team/a", "team/x/y", "teamwork")
    assert [read.credential_for("r.test", name).username for name in names] == ["all", "team", "x", "all"]


def test_the_forms_of_an_entry():
    plain = {"username": "me", "password": "pw"}
    token = {**auth("00000000-0000", ""), "identitytoken": "secret-token"}
    read = config(auths={"a.test": plain, "b.test": token, "c.test": {}, "d.test": auth("nul", "pw\0")})
    assert read.credential_for("a.test") == Credential("me", "pw")
    assert read.credential_for("b.test") == Credential("00000000-0000", "", "secret-token")
    assert read.credential_for("c.test") == ANONYMOUS
    assert read.credential_for("d.test") == Credential("nul", "pw")


def test_secrets_are_not_shown():
    shown = repr(Credential("me", "topsecret", "alsosecret")) + repr(config(auths={"a": auth("me", "topsecret")}))
    assert "me" in shown
    assert "secret" not in shown


def test_fingerprints_tell_identities_apart():
    identities = [ANONYMOUS, Credential("a", "b"), Credential("ab"), Credential("", "ab"), Credential("a", "", "b")]
    assert len({identity.fingerprint for identity in identities}) == len(identities)
    assert Credential("a", "b").fingerprint == Credential("a", "b").fingerprint


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not a docker config.json"),
        (b"[]", "not a docker config.json"),
        (b'{"auths": {"r.test": {"auth": "***"}}}', "auth of r.test is not base64"),
        (b'{"auths": {"r.test": {"auth": "c2VjcmV0"}}}', "auth of r.test is not user:password"),
    ],
)
def test_a_broken_file_is_named_without_its_content(data, says):
    with pytest.raises(InvalidCredentials, match=says) as caught:
        DockerConfig.parse(data, Path("/x/config.json"))
    assert "/x/config.json" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_where_the_file_is(tmp_path):
    docker = tmp_path / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"auths": {"r.test": auth("home", "1")}}))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"auths": {"r.test": auth("variable", "2")}}))
    assert DockerConfig.load({}, tmp_path).credential_for("r.test").username == "home"
    assert DockerConfig.load({"DOCKER_CONFIG": str(other)}, tmp_path).credential_for("r.test").username == "variable"
    assert DockerConfig.load({}, tmp_path / "none").credential_for("r.test") == ANONYMOUS


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidCredentials, match="cannot be read"):
        DockerConfig.load({"DOCKER_CONFIG": str(tmp_path)}, tmp_path)


def test_a_helper_is_asked_once_for_its_host(tmp_path):
    script = f'read server; echo "$1 $server" >> {tmp_path}/asked; echo \'{{"Username":"me","Secret":"pw"}}\''
    read = with_helper(tmp_path, script, credHelpers={"r.test": "test"}, auths={"r.test": auth("file", "x")})
    assert read.credential_for("r.test", "a") == Credential("me", "pw")
    assert read.credential_for("r.test", "b") == Credential("me", "pw")
    assert read.credential_for("other.test") == ANONYMOUS
    assert (tmp_path / "asked").read_text() == "get r.test\n"


def test_the_store_is_asked_for_hosts_without_an_entry(tmp_path):
    script = 'read server; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"for $server\\"}"'
    read = with_helper(tmp_path, script, credsStore="test", auths={"r.test": auth("file", "x"), "docker.io": {}})
    assert read.credential_for("r.test").username == "file"
    assert read.credential_for("docker.io") == Credential(identity_token="for https://index.docker.io/v1/")


def test_a_helper_that_has_nothing_means_anonymous(tmp_path):
    script = "echo credentials not found in native keychain; exit 1"
    assert with_helper(tmp_path, script, credsStore="test").credential_for("r.test") == ANONYMOUS


@pytest.mark.parametrize(
    ("script", "says"), [("echo no keyring >&2; exit 3", "no keyring"), ("echo hello", "no JSON that fits")]
)
def test_a_helper_that_fails_is_named(tmp_path, script, says):
    with pytest.raises(InvalidCredentials, match=says) as caught:
        with_helper(tmp_path, script, credsStore="test").credential_for("r.test")
    assert "docker-credential-test" in str(caught.value)
    assert "r.test" in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "../../bin/sh"])
def test_a_missing_helper_is_named(name):
    with pytest.raises(InvalidCredentials, match="not in PATH") as caught:
        config(credHelpers={"r.test": name}).credential_for("r.test")
    assert f"docker-credential-{name}" in str(caught.value)
