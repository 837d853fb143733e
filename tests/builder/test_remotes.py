"""ADD of URLs and git repositories: real servers on 127.0.0.1, the real git."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import pytest

from builder.contexts.download import download
from builder.contexts.git_program import Git
from builder.contexts.remote import GitSource, UrlSource, parse_remote
from builder.errors import ContextError
from cache.oci.digest import Digest
from tests.builder.case_files import describe
from tests.builder.servers import repository, web
from tests.integration.building import Builder, write_files
from tests.peers import free_port

__all__ = ["repository", "web"]

HELLO = b"hello\n"
DIGEST = Digest.of(HELLO)


# What a source is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/a/b%20c.txt?q=1", UrlSource("https://h/a/b%20c.txt?q=1")),
        ("https://h/x.git", GitSource("https://h/x.git")),
        ("https://h/x.git#v1:sub/dir/", GitSource("https://h/x.git", "v1", "sub/dir")),
        ("https://h/x.git#:sub", GitSource("https://h/x.git", "", "sub")),
        ("git@github.com:o/r#main", GitSource("git@github.com:o/r", "main")),
        ("git://h/r", GitSource("git://h/r")),
        ("ssh://git@h/r.git", GitSource("ssh://git@h/r.git")),
        ("github.com/o/r", GitSource("https://github.com/o/r")),
        ("https://h/x.git.txt", UrlSource("https://h/x.git.txt")),
    ],
)
def test_kinds(text, expected):
    assert parse_remote(text) == expected


@pytest.mark.parametrize(
    ("text", "checksum", "said"),
    [
        ("https://h/x", "sha256:12", "--checksum"),
        ("https://h/x", "md5:" + "0" * 32, "--checksum"),
        ("https://h/x.git", "sha256:" + "0" * 64, "expected a commit"),
        ("https://h/x.git#--upload-pack=x", "", "is not a ref"),
        ("https:///x", "", "no host"),
    ],
)
def test_what_cannot_be_a_source(text, checksum, said):
    with pytest.raises(ValueError, match=said):
        parse_remote(text, checksum=checksum)


@pytest.mark.parametrize(
    ("url", "name"), [("https://h", "__unnamed__"), ("https://h/d/", "__unnamed__"), ("https://h/a%2Fb?x", "b")]
)
def test_names(url, name):
    assert UrlSource(url).name == name


# Downloads


async def test_a_file_with_its_time_and_digest(tmp_path, web):
    url = web.answer("/f", (200, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, HELLO))
    found = await download(UrlSource(url, DIGEST), tmp_path / "f")
    assert (found.path.read_bytes(), found.digest, found.size_bytes, found.mtime_s) == (HELLO, DIGEST, 6, 1445412480)


@pytest.mark.parametrize("headers", [{}, {"Last-Modified": "nonsense"}])
async def test_without_a_time_it_is_zero(tmp_path, web, headers):
    assert (await download(UrlSource(web.answer("/f", (200, headers, HELLO))), tmp_path / "f")).mtime_s == 0


async def test_a_fault_that_passes_is_waited_for(tmp_path, web):
    url = web.answer("/f", (503, {}, b""), (200, {"Content-Length": "9999"}, b"cut"), (200, {}, HELLO))
    assert (await download(UrlSource(url), tmp_path / "f")).digest == DIGEST
    assert len(web.asked) == 3


async def test_sha512(tmp_path, web):
    digest = Digest("sha512", hashlib.sha512(HELLO).hexdigest())
    assert (await download(UrlSource(web.answer("/f", (200, {}, HELLO)), digest), tmp_path / "f")).digest == digest


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b""), "answered 404"),
        ((200, {}, b"other"), "expected sha256:5891b5b5"),
        ((200, {}, b"0" * 100), "more than 50 bytes"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "sends us to something"),
        ((302, {"Location": "/f?secret=1"}, b""), "more than 10 redirects"),
    ],
)
async def test_what_is_refused_is_told_without_secrets(tmp_path, web, answer, said):
    url = web.answer("/f", answer).replace("://", "://user:sesame@") + "?token=sesame"
    with pytest.raises(ContextError, match=said) as caught:
        await download(UrlSource(url, DIGEST), tmp_path / "f", max_bytes=50)
    assert "sesame" not in str(caught.value)


async def test_credentials_stay_with_their_server(tmp_path, web):
    web.answer("/there", (200, {}, HELLO))
    url = web.answer("/f", (302, {"Location": f"{web.other_host_url}/there"}, b""))
    await download(UrlSource(url.replace("://", "://user:sesame@")), tmp_path / "f")
    assert web.asked[0][1] is not None
    assert web.asked[1] == ("/there", None)


def test_in_an_image(tmp_path, web):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("in/side")
        info.size = 6
        archive.addfile(info, io.BytesIO(HELLO))
    plain = web.answer("/d/plain.txt", (200, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, HELLO))
    tar = web.answer("/a.tar.gz", (200, {}, packed.getvalue()))
    dockerfile = (
        f"FROM scratch\nARG U={plain}\nADD --chown=5:6 $U /into/\nADD --checksum={DIGEST} --chmod=755 {plain} /named\n"
        f"ADD --unpack=true {tar} /unpacked/\nADD {tar} {plain} /two/\n"
    )
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile})
    builder = Builder(tmp_path / "home")
    given = (context, "--no-push", "--cache", f"--oci-layout-path={tmp_path}/layout")
    builder.must(*given)
    lines = [line for line in describe(tmp_path / "layout", 0).splitlines() if line.startswith("  -")]
    assert [line.partition(" bytes")[0].rpartition(" ")[0] if "bytes" in line else line for line in lines] == [
        '  -rw------- 5:6 into/plain.txt "hello\\n"',
        '  -rwxr-xr-x 0:0 named "hello\\n"',
        '  -rw-r--r-- 0:0 unpacked/in/side "hello\\n"',
        "  -rw------- 0:0 two/a.tar.gz",
        '  -rw------- 0:0 two/plain.txt "hello\\n"',
    ]
    assert set(builder.must(*given).outcomes) == {"CACHED"}
    web.answer("/d/plain.txt", (200, {}, b"changed\n"))
    ended = builder.build(*given)
    assert ended.status == 1
    assert "has not the checksum that was asked for" in ended.output
    assert any(line.startswith("[stage-0 2/5]") for line in ended.rebuilt)


def test_with_a_checksum_nothing_is_fetched_for_a_hit(tmp_path, web):
    url = web.answer("/f", (200, {}, HELLO))
    text = f"FROM scratch\nADD --checksum={DIGEST} {url} /f\n"
    context = write_files(tmp_path / "context", {"Dockerfile": text})
    builder = Builder(tmp_path / "home")
    builder.must(context, "--no-push", "--cache")
    asked = len(web.asked)
    assert builder.must(context, "--no-push", "--cache").outcomes == ["CACHED"]
    assert len(web.asked) == asked


# git


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("ADD {} /r", {"r/top": "2\\n", "r/sub/file": "f\\n"}),
        ("ADD {}#v1 /r/", {"r/top": "1\\n", "r/sub/file": "f\\n"}),
        ("ADD --chown=3:4 {}#main:sub /r", {"r/file": "f\\n"}),
        ("ADD --exclude=sub {} /r", {"r/top": "2\\n"}),
    ],
)
def test_a_repository_in_an_image(tmp_path, repository, line, files):
    context = write_files(tmp_path / "context", {"Dockerfile": f"FROM scratch\n{line.format(repository)}\n"})
    Builder(tmp_path / "home").must(context, "--no-push", f"--oci-layout-path={tmp_path}/layout")
    listed = [entry for entry in describe(tmp_path / "layout", 0).splitlines() if entry.startswith("  -rw-r--r--")]
    assert {entry.split()[2]: entry.split('"')[1] for entry in listed} == files
    assert {entry.split()[1] for entry in listed} == {"3:4" if "--chown" in line else "0:0"}


def test_keep_git_dir(tmp_path, repository):
    text = f"FROM scratch\nADD --keep-git-dir=true {repository} /r\n"
    context = write_files(tmp_path / "context", {"Dockerfile": text})
    Builder(tmp_path / "home").must(context, "--no-push", f"--oci-layout-path={tmp_path}/layout")
    assert " r/.git/HEAD " in describe(tmp_path / "layout", 0)


def test_refs_and_commits(tmp_path, repository):
    git = Git(os.environ)
    tagged = git.commit_of(GitSource(repository, "v1"))
    assert git.commit_of(GitSource(repository)) == git.commit_of(GitSource(repository, "main")) != tagged
    assert git.commit_of(GitSource(repository, "v1", commit=tagged[:12])) == tagged
    assert git.commit_of(GitSource(repository, tagged)) == tagged
    with pytest.raises(ContextError, match="expected the commit 0000000, got"):
        git.commit_of(GitSource(repository, "v1", commit="0000000"))
    with pytest.raises(ContextError, match="has no ref 'none'"):
        git.commit_of(GitSource(repository, "none"))


def test_what_git_says_comes_without_passwords(tmp_path):
    with pytest.raises(ContextError, match="cannot fetch") as caught:
        Git(os.environ).commit_of(GitSource(f"http://user:sesame@127.0.0.1:{free_port()}/r.git"))
    assert "sesame" not in str(caught.value)
