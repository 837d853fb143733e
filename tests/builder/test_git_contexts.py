"""Git contexts with submodules, over HTTP with a password, over the web server that knows no git, and over ssh."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.contexts.git_program import Git
from builder.contexts.locations import parse_context
from builder.contexts.remote import GitSource, parse_git
from builder.errors import ContextError
from builder.options import Limits
from tests.builder.case_files import describe
from tests.builder.git_servers import LOGIN, GitOverHttp, Sshd, git, git_over_http, make_repository, sshd
from tests.builder.servers import Web, web
from tests.integration.building import Builder, write_files

__all__ = ["web"]

TOKEN = base64.b64encode(LOGIN.encode()).decode()
FILES = {"top", "lib/file", "lib/deep/file"}


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """``app`` with the submodule ``lib`` at a commit that is no branch's end, and in that the submodule ``deep``."""
    root = tmp_path / "repositories"
    deep = make_repository(root / "deep.git", {"file": "deep\n"})
    lib = make_repository(root / "lib.git", {"file": "lib\n"}, {"deep": (deep, "../deep.git")})
    make_repository(root / "app.git", {"top": "top\n"}, {"lib": (lib, "../lib.git")})
    write_files(lib, {"file": "later\n"})
    git(lib, "commit", "--quiet", "-a", "-m", "later")
    return root


@pytest.fixture
def over_http(repositories: Path) -> Iterator[GitOverHttp]:
    with git_over_http(repositories) as served:
        yield served


@pytest.fixture(scope="module")
def over_ssh() -> Iterator[Sshd]:
    with (
        tempfile.TemporaryDirectory(prefix="sshd-", dir="/tmp") as own,
        sshd(Path(own)) as running,
    ):  # sockets' short paths
        yield running


def checked_out(source: GitSource, directory: Path, environ: dict[str, str]) -> set[str]:
    """The files of the source, once they are there."""
    program = Git({"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ})
    program.check_out(source, program.commit_of(source), directory)
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} - {
        ".gitmodules",
        "lib/.gitmodules",
    }


# Submodules


@pytest.mark.parametrize(
    ("limits", "said", "written"),
    [
        (Limits(files=1), "has more than 1 files (--max-files)", False),  # top and .gitmodules
        (Limits(files=3), "has more than 3 files (--max-files)", True),  # known when the submodules are there
        (Limits(unpacked_bytes=3), "has more than 3 bytes (--max-unpacked-bytes)", False),
    ],
)
def test_no_more_comes_in_than_may(limits: Limits, said: str, written: bool, over_http: GitOverHttp, tmp_path: Path):
    source = GitSource(f"{over_http.url}/app.git")
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_TOKEN": "sesame", "GIT_USERNAME": "user"}
    program = Git(environ, limits)
    with pytest.raises(ContextError, match=re.escape(said)):
        program.check_out(source, program.commit_of(source), tmp_path / "out")
    assert (tmp_path / "out/top").exists() == written


@pytest.mark.parametrize("dumb", [False, True], ids=["one commit", "all branches"])
def test_git_is_sent_no_more_than_may_come(dumb: bool, tmp_path: Path, web: Web):
    repository = make_repository(tmp_path / "large.git", {"small": "small\n"})
    (repository / "large").write_bytes(os.urandom(3_000_000))
    git(repository, "add", "large")
    git(repository, "commit", "--quiet", "-m", "large")
    if dumb:
        serve_files(web, repository)
    source = GitSource(f"{web.url}/large.git" if dumb else f"file://{repository}")
    program = Git({"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, Limits(download_bytes=1_000_000))
    with pytest.raises(ContextError, match=re.escape("a file of more than 1000000 bytes (--max-download-bytes)?")):
        program.check_out(source, program.commit_of(source), tmp_path / "out")
    assert max(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 1_000_000


def serve_files(web: Web, repository: Path) -> None:
    """Lets a server that knows no git serve the repository."""
    git(repository, "update-server-info")
    for path in (repository / ".git").rglob("*"):
        if path.is_file():
            web.answer(f"/{repository.name}/{path.relative_to(repository / '.git')}", (200, {}, path.read_bytes()))


def test_submodules_come_with_their_repository(tmp_path, over_http):
    url = f"{over_http.url}/app.git"
    assert checked_out(parse_git(url), tmp_path / "all", {"GIT_TOKEN": "sesame", "GIT_USERNAME": "user"}) == FILES
    assert (tmp_path / "all/lib/file").read_text() == "lib\n"
    alone = url.replace("://", f"://{LOGIN}@") + "?submodules=false"
    assert checked_out(parse_git(alone), tmp_path / "alone", {}) == {"top"}


def test_a_context_with_submodules(tmp_path, over_http):
    write_files(tmp_path, {"Dockerfile": "FROM scratch\nCOPY . /\n"})
    url = f"{over_http.url.replace('://', f'://{LOGIN}@')}/app.git"
    given = ("--no-push", "--cache", "-f", tmp_path / "Dockerfile")
    builder = Builder(tmp_path / "home")
    builder.must(url, *given, f"--oci-layout-path={tmp_path}/layout")
    shown = describe(tmp_path / "layout", 0)
    assert ' lib/file "lib\\n"' in shown
    assert ' lib/deep/file "deep\\n"' in shown
    assert builder.must(url, *given).outcomes == ["CACHED"]


def test_submodules_of_a_server_that_gives_no_single_commits(tmp_path, repositories, web):
    for name in ("app", "lib", "deep"):
        serve_files(web, repositories / f"{name}.git")
    for name, inner in (("app", "lib"), ("lib", "deep")):
        write_files(
            repositories / f"{name}.git", {".gitmodules": f'[submodule "{inner}"]\npath={inner}\nurl=../{inner}.git\n'}
        )
    assert checked_out(GitSource(f"{web.url}/app.git"), tmp_path / "all", {}) == FILES


def test_credentials_go_to_submodules_of_the_same_host_only(tmp_path, repositories, over_http):
    make_repository(
        repositories / "two.git",
        {"top": "top\n"},
        {
            "here": (repositories / "deep.git", "../deep.git"),
            "there": (repositories / "deep.git", f"{over_http.other_host_url}/deep.git"),
        },
    )
    source = GitSource(f"{over_http.url}/two.git".replace("://", f"://{LOGIN}@"))
    with pytest.raises(ContextError, match="Authentication failed for 'http://localhost") as caught:
        checked_out(source, tmp_path / "all", {})
    assert "sesame" not in str(caught.value)
    assert {host for host, given in over_http.asked if given == f"Basic {TOKEN}"} == {"127.0.0.1"}
    assert {host for host, _ in over_http.asked} == {"127.0.0.1", "localhost"}
    kept = GitSource(source.repository, keep_git_dir=True, submodules=False)
    checked_out(kept, tmp_path / "kept", {})
    found = subprocess.run(["grep", "-rlE", f"sesame|{TOKEN}", tmp_path / "kept"], check=False, capture_output=True)
    assert (found.returncode, found.stdout) == (1, b"")


@pytest.mark.parametrize("url", ["{}/deep.git", "file://{}/deep.git", "ext::sh -c touch% {}/touched"])
def test_a_submodule_that_is_not_elsewhere_is_refused(tmp_path, repositories, over_http, url):
    deep = repositories / "deep.git"
    make_repository(repositories / "bad.git", {"top": "top\n"}, {"in": (deep, url.format(repositories))})
    with pytest.raises(ContextError, match=r"(?s)cannot fetch http://127.*transport '(file|ext)' not allowed"):
        checked_out(GitSource(f"{over_http.url}/bad.git".replace("://", f"://{LOGIN}@")), tmp_path / "all", {})
    assert not (repositories / "touched").exists()


def test_without_git_it_is_said(tmp_path):
    with pytest.raises(ContextError, match=r"cannot fetch git://127.0.0.1/r: the program git is not installed here"):
        checked_out(GitSource("git://127.0.0.1/r"), tmp_path / "all", {"PATH": "/nonexistent"})


# ssh


def test_over_ssh_with_an_agent(tmp_path, repositories, over_ssh):
    environ = {
        "SSH_AUTH_SOCK": str(over_ssh.agent),
        "GIT_SSH_COMMAND": f"ssh -F none -o BatchMode=yes -o UserKnownHostsFile={over_ssh.known_hosts}",
    }
    context = parse_context(f"ssh://{over_ssh.user}@127.0.0.1:{over_ssh.port}{repositories}/app.git#main")
    assert isinstance(context, GitSource)
    assert checked_out(context, tmp_path / "all", environ) == FILES
    short = GitSource(f"{over_ssh.user}@127.0.0.1:{repositories}/app.git")
    environ["GIT_SSH_COMMAND"] += f" -p {over_ssh.port}"
    assert Git({**os.environ, **environ}).commit_of(short) == git(repositories / "app.git", "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("environ", "options", "said"),
    [
        ({}, "UserKnownHostsFile={known_hosts}", "Permission denied (publickey)"),
        ({"SSH_AUTH_SOCK": "{agent}"}, "UserKnownHostsFile=/dev/null", "Host key verification failed"),
    ],
)
def test_whom_ssh_does_not_know(tmp_path, repositories, over_ssh, environ, options, said):
    known = {"known_hosts": over_ssh.known_hosts, "agent": over_ssh.agent}
    given = {name: value.format(**known) for name, value in environ.items()}
    given["GIT_SSH_COMMAND"] = f"ssh -F none -o BatchMode=yes -o {options.format(**known)}"
    source = GitSource(f"ssh://{over_ssh.user}@127.0.0.1:{over_ssh.port}{repositories}/app.git")
    with pytest.raises(ContextError) as caught:
        checked_out(source, tmp_path / "all", given)
    assert said in str(caught.value)
