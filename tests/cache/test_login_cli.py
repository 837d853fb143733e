"""crossdock login and logout: checked at a real registry, kept for the owner alone, or given to a helper."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from cache import login_cli, logout_cli
from cache.oci.credentials import DockerConfig
from tests.peers import Registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def log_in(monkeypatch: pytest.MonkeyPatch, registry: Registry, password: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    return login_cli.main([registry.host, f"--username={registry.username}", "--password-stdin"])


def test_a_password_that_the_registry_takes_is_kept_and_forgotten_again(home, private_registry, monkeypatch, capsys):
    assert log_in(monkeypatch, private_registry, private_registry.password) == 0
    path = home / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = DockerConfig.parse(path.read_bytes()).credential_for(private_registry.host)
    assert (kept.username, kept.password) == (private_registry.username, private_registry.password)
    assert logout_cli.main([private_registry.host]) == 0
    assert json.loads(path.read_bytes()) == {"auths": {}}
    assert logout_cli.main([private_registry.host]) == 1
    shown = capsys.readouterr()
    assert private_registry.password not in shown.out + shown.err


def test_a_password_that_is_refused_is_not_kept_nor_shown(home, private_registry, monkeypatch, capsys):
    assert log_in(monkeypatch, private_registry, "s3cret-but-wrong") == 1
    assert not home.exists()
    shown = capsys.readouterr()
    assert f"{private_registry.host} refuses user 'crossdock'" in shown.err
    assert "s3cret" not in shown.out + shown.err


def test_what_else_is_in_the_file_stays(home, private_registry, monkeypatch):
    home.mkdir()
    other = {"auths": {"other.example": {"auth": "YTpi"}}, "credHelpers": {"gcr.io": "gcr"}, "currentContext": "x"}
    (home / "config.json").write_text(json.dumps(other))
    assert log_in(monkeypatch, private_registry, private_registry.password) == 0
    written = json.loads((home / "config.json").read_bytes())
    assert set(written.pop("auths")) == {"other.example", private_registry.host}
    assert written == {"credHelpers": {"gcr.io": "gcr"}, "currentContext": "x"}


@pytest.mark.parametrize("by_host", [True, False])
def test_a_helper_that_the_file_names_keeps_it(home, private_registry, monkeypatch, tmp_path, by_host):
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-test"
    helper.write_text(f'#!/bin/sh\necho "$1 $(/bin/cat)" >> {tmp_path}/asked\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    home.mkdir()
    named = {"credHelpers": {private_registry.host: "test"}} if by_host else {"credsStore": "test"}
    (home / "config.json").write_text(json.dumps(named))
    assert log_in(monkeypatch, private_registry, private_registry.password) == 0
    assert json.loads((home / "config.json").read_bytes()) == named
    assert logout_cli.main([private_registry.host]) == 0
    stored, erased = (tmp_path / "asked").read_text().splitlines()
    verb, _, text = stored.partition(" ")
    secret = {"ServerURL": private_registry.host, "Username": "crossdock", "Secret": private_registry.password}
    assert (verb, json.loads(text)) == ("store", secret)
    assert erased == f"erase {private_registry.host}"
