"""Build contexts of every kind: what they are called, and that each gives the same image and the same keys."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from builder.contexts.context import Context, ContextReader
from builder.contexts.ignore import IgnoreRules
from builder.contexts.locations import (
    AzureBlob,
    DirectoryContext,
    GitOptions,
    GoogleObject,
    ImageContext,
    LayoutContext,
    S3Object,
    TarFile,
    WebArchive,
    parse_context,
    parse_named_context,
)
from builder.contexts.remote import GitSource, parse_git
from builder.errors import Span
from builder.planning.graph import ContextRead
from builder.planning.sources import ContextSource, Selection
from cache.oci.digest import Digest
from cache.oci.reference import Reference
from tests.builder.case_files import describe
from tests.builder.servers import Web, repository, serving, web
from tests.integration.building import Builder, Ended, write_files
from tests.s3_servers import make_certificate

__all__ = ["repository", "web"]

FILES = {
    "Dockerfile": "FROM scratch\nCOPY . /all/\nCOPY sub/file /one\n",
    ".dockerignore": "left-out\nDockerfile\n.dockerignore\n",
    "left-out": "no\n",
    "top": "2\n",
    "sub/file": "f\n",
}
COMMIT = "a" * 40
AZURE = "https://acct.blob.core.windows.net/container/dir/blob"


def packed(files: dict[str, str], mode: str = "w:gz") -> bytes:
    """A tar of these texts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


# What they are called


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/w", DirectoryContext(Path("/w"))),
        ("dir:///w", DirectoryContext(Path("/w"))),
        ("tar:///w/c.tar.gz", TarFile(Path("/w/c.tar.gz"))),
        ("tar://stdin", TarFile(None)),
        ("tar://-", TarFile(None)),
        ("-", TarFile(None)),
        ("s3://b/d/k.tar", S3Object("b", "d/k.tar")),
        ("s3://b", S3Object("b", "context.tar.gz")),
        ("gs://b/", GoogleObject("b", "context.tar.gz")),
        (AZURE, AzureBlob(AZURE)),
        ("https://h/c.tar?sig=1", WebArchive("https://h/c.tar?sig=1")),
        ("https://h/r.git", GitSource("https://h/r.git")),
        ("git://h/o/r#refs/heads/x#" + COMMIT, GitSource("https://h/o/r", "refs/heads/x", commit=COMMIT)),
        ("git@h:o/r.git#v1:sub", GitSource("git@h:o/r.git", "v1", "sub")),
    ],
)
def test_kinds(text, expected):
    assert parse_context(text, git_scheme="https") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://h/c.tar", "ftp://… is not supported"),
        ("s3:///k", "names no bucket"),
        ("tar://", "names no file"),
        ("https:///c.tar", "no host"),
        ("https://acct.blob.core.windows.net/container", "CONTAINER/BLOB"),
        ("https://h/r.git#--upload-pack=x", "is not a ref"),
        ("https://h/r.git#a..b", "is not a ref"),
        ("https://h/r.git#main#zzz", "is not a commit"),
        ("https://h/r.git?what=1", "'what' behind the"),
        ("https://h/r.git?ref=a#b", "said elsewhere"),
        ("https://h/r.git?ref=a&branch=b", "said elsewhere"),
        ("https://h/r.git?submodules=maybe", "expected true or false"),
    ],
)
def test_what_is_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse_context(text)


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("?ref=v1&subdir=/a/b/", {"ref": "v1", "directory": "a/b"}),
        ("?branch=x&keep-git-dir=1", {"ref": "refs/heads/x", "keep_git_dir": True}),
        ("?tag=x&checksum=abcdef1", {"ref": "refs/tags/x", "commit": "abcdef1"}),
        ("?commit=abcdef1&submodules=false", {"commit": "abcdef1", "submodules": False}),
        (f"#{COMMIT}", {"ref": COMMIT}),
        ("?submodules=false#main:d", {"ref": "main", "directory": "d", "submodules": False}),
    ],
)
def test_what_stands_behind_a_repository(behind, expected):
    assert parse_git("https://h/r.git" + behind) == GitSource("https://h/r.git", **expected)


def test_git_options_hold_where_the_url_says_nothing():
    options = GitOptions(branch="b", submodules=False, skip_tls_verify=True)
    found = parse_context("https://h/r.git", options)
    assert found == GitSource("https://h/r.git", "b", submodules=False, skip_tls_verify=True)
    assert parse_context("https://h/r.git#main", options).ref == "main"
    assert parse_context("git://h/r", git_scheme="http").repository == "http://h/r"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker-image://alpine:3", ImageContext(Reference.parse("alpine:3"))),
        ("oci-layout:///l/x:v1", LayoutContext(Path("/l/x"), "v1")),
        ("oci-layout:///l:1/x", LayoutContext(Path("/l:1/x"))),
        ("oci-layout:///l/x@sha256:1", LayoutContext(Path("/l/x"), "sha256:1")),
        ("git://h/r", GitSource("git://h/r")),
    ],
)
def test_named_kinds(text, expected):
    assert parse_named_context(text) == expected


def test_nothing_secret_is_shown():
    for text in (
        "https://u:sesame@h/c.tar?X-Amz-Signature=sesame",
        AZURE + "?sv=1&sig=sesame",
        "https://u:sesame@h/r.git",
    ):
        context = parse_context(text)
        assert "sesame" not in f"{context} {context!r}"


# One content, one key, whatever it comes through


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_files(tmp_path / "context", FILES)


def given(builder: Builder, arguments: list[object], stdin: bytes = b"") -> Ended:
    """A build with something on its standard input."""
    done = subprocess.run(
        builder.command(*arguments), env=builder.environ(), input=stdin, capture_output=True, timeout=100, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stderr.decode())


def test_each_kind_hits_what_another_built(tmp_path, directory, web):
    builder = Builder(tmp_path / "home")
    common: list[object] = ["--no-push", "--cache", "--reproducible"]
    builder.must(directory, *common, f"--oci-layout-path={tmp_path}/layout")
    assert '"f\\n"' in describe(tmp_path / "layout", 0)
    tars = {
        "plain": packed(FILES, "w"),
        "gzip": packed(FILES, "w:gz"),
        "bzip2": packed(FILES, "w:bz2"),
        "xz": lzma.compress(packed(FILES, "w")),
        "zstd": zstandard.compress(packed(FILES, "w")),
    }
    for name, data in tars.items():
        (tmp_path / name).write_bytes(data)
        ended = builder.must("--context", f"tar://{tmp_path / name}", *common)
        assert ended.outcomes == ["CACHED", "CACHED"], name
    assert given(builder, ["-", *common], tars["gzip"]).outcomes == ["CACHED", "CACHED"]
    deeper = {f"deep/er/{name}": text for name, text in FILES.items()}
    url = web.answer("/context.tar.gz", (200, {}, packed(deeper)))
    assert builder.must(url, "--context-sub-path=deep/er", *common).outcomes == ["CACHED", "CACHED"]
    assert not list((tmp_path / "home/.cache/crossdock/build/work").iterdir())


def test_a_repository_hits_what_a_directory_built(tmp_path, repository):
    builder = Builder(tmp_path / "home", {"GIT_PULL_METHOD": "git"})
    context = write_files(tmp_path / "context", {"top": "2\n", "sub/file": "f\n"})
    write_files(tmp_path, {"Dockerfile": "FROM scratch\nCOPY . /\n", "sub.Dockerfile": "FROM scratch\nCOPY file /\n"})
    common = ["--no-push", "--cache", "-f", tmp_path / "Dockerfile"]
    builder.must(context, *common)
    assert builder.must(repository, *common).outcomes == ["CACHED"]
    assert builder.must(repository, "--git=branch=v1", *common).outcomes != ["CACHED"]
    assert builder.must(repository + "?ref=main", *common).outcomes == ["CACHED"]
    below = ["--no-push", "--cache", "-f", tmp_path / "sub.Dockerfile"]
    builder.must(context / "sub", *below)
    assert builder.must(repository + "#main:sub", *below).outcomes == ["CACHED"]
    ended = builder.build(repository + "#main:none", *below)
    assert (ended.status, "has no directory 'none'" in ended.output) == (1, True)
    kept = builder.must(repository, "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", *common)
    assert kept.outcomes != ["CACHED"]


@pytest.fixture
def repository_url(tmp_path: Path, repository: str, web: Web) -> str:
    """The same repository by HTTP, as plain files: a server that knows nothing of git."""
    bare = tmp_path / "bare.git"
    clone = ["git", "clone", "--quiet", "--bare", str(tmp_path / "served/repo"), str(bare)]
    subprocess.run(clone, check=True, capture_output=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True, capture_output=True)
    for path in bare.rglob("*"):
        if path.is_file():
            web.answer(f"/r.git/{path.relative_to(bare)}", (200, {}, path.read_bytes()))
    return f"{web.url}/r.git"


def test_credentials_of_a_repository_go_to_its_host_and_into_no_layer(tmp_path, repository_url, web):
    write_files(tmp_path, {"Dockerfile": "FROM scratch\nCOPY . /\n"})
    arguments = ["--no-push", "-f", tmp_path / "Dockerfile", "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]
    told = []
    for user, environ, pair in (
        ("user:sesame@", {}, "user:sesame"),
        ("", {"GIT_TOKEN": "sesame"}, "x-access-token:sesame"),
        ("", {"GIT_USERNAME": "u", "GIT_PASSWORD": "sesame"}, "u:sesame"),
    ):
        web.asked.clear()
        layout = tmp_path / f"layout{len(told)}"
        url = repository_url.replace("://", f"://{user}")
        ended = Builder(tmp_path / "home", environ).must(url, *arguments, f"--oci-layout-path={layout}")
        expected = f"Basic {base64.b64encode(pair.encode()).decode()}"
        assert {authorization for _, authorization in web.asked} == {expected}
        told.append(ended.output)
        blobs = [path.read_bytes() for path in (layout / "blobs/sha256").iterdir()]
        told += [
            (gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob).decode(errors="replace") for blob in blobs
        ]
    assert any(".git/config" in text for text in told)
    assert not any("sesame" in text or expected.split()[1] in text for text in told)


def test_over_tls_with_credentials_and_after_a_fault(tmp_path):
    make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "cert.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    data = packed(FILES)
    with serving(Web(both)) as web:
        url = web.answer("/c.tar.gz", (200, {"Content-Length": str(len(data) * 2)}, data), (200, {}, data))
        url = url.replace("://", "://user:sesame@") + "?token=sesame"
        refused = Builder(tmp_path / "home").build(url, "--no-push")
        assert refused.status == 1
        builder = Builder(tmp_path / "home", {"SSL_CERT_FILE": str(tmp_path / "cert.pem")})
        ended = builder.must(url, "--no-push")
    assert len(web.asked) == 2
    assert (web.asked[1][1] or "").startswith("Basic ")
    assert "sesame" not in refused.output + ended.output


def test_limits(tmp_path, directory, web):
    tar = tmp_path / "c.tar.gz"
    tar.write_bytes(packed({**FILES, "zeros": "0" * 3_000_000}))
    builder = Builder(tmp_path / "home")
    ended = builder.build(f"tar://{tar}", "--no-push", "--max-unpacked-bytes=2MB")
    assert "more than 2000000 bytes unpacked (--max-unpacked-bytes)" in ended.output
    write_files(directory, {"Dockerfile": "FROM scratch\nADD c.tar.gz /\n"})
    (directory / "c.tar.gz").write_bytes(tar.read_bytes())
    ended = builder.build(directory, "--no-push", "--max-files=3")
    assert ("more than 3 files (--max-files)" in ended.output, "Dockerfile:2" in ended.output) == (True, True)
    url = web.answer("/big", (200, {}, b"0" * 1000))
    write_files(directory, {"Dockerfile": f"FROM scratch\nADD {url} /\n"})
    ended = builder.build(directory, "--no-push", "--max-download-bytes=999")
    assert "more than 999 bytes (--max-download-bytes)" in ended.output


def test_a_file_that_changes_during_the_build(tmp_path, directory, web):
    """The first step's download changes what the second step copies, after its key was made."""
    url = web.answer("/f", (200, {}, b"x"))
    web.when_asked = lambda: (directory / "top").write_text("3\n") and None
    text = f"FROM scratch\nADD --checksum={Digest.of(b'x')} {url} /f\nCOPY top /\n"
    write_files(directory, {"Dockerfile": text})
    builder = Builder(tmp_path / "home")
    ended = builder.build(directory, "--no-push", "--cache")
    assert (ended.status, "changed during the build" in ended.output, "Dockerfile:3" in ended.output) == (1, True, True)
    (directory / "top").write_text("2\n")
    assert builder.must(directory, "--no-push", "--cache").outcomes[1] != "CACHED"


def test_a_bound_file_that_changes_during_the_build(tmp_path, directory, web, busybox_layout):
    url = web.answer("/f", (200, {}, b"x"))
    web.when_asked = lambda: (directory / "top").write_text("3\n") and None
    text = f"FROM base\nADD --checksum={Digest.of(b'x')} {url} /f\nRUN --mount=target=/c cat /c/top > /top\n"
    write_files(directory, {"Dockerfile": text})
    given = (directory, "--no-push", "--cache", f"--build-context=base=oci-layout://{busybox_layout}:base")
    builder = Builder(tmp_path / "home")
    ended = builder.build(*given)
    assert (ended.status, "top' changed during the build" in ended.output) == (1, True), ended.output
    assert "Dockerfile:3" in ended.output
    (directory / "top").write_text("2\n")
    assert builder.must(*given).outcomes[0] == "CACHED"


# Once for each build


async def test_what_steps_take_is_read_once(tmp_path):
    write_files(tmp_path, {"a": "1\n", "b": "1\n"})
    opened: list[str] = []

    async def open_context(name: str) -> Context:
        opened.append(name)
        return Context(tmp_path, IgnoreRules.parse(""))

    def wanted(line: int, path: str) -> ContextRead:
        return ContextRead(ContextSource(), Selection(patterns=(path,)), False, Span("Dockerfile", line, ""))

    reader = ContextReader(open_context)
    first = await reader.read([((0, 0, 0), wanted(1, "a")), ((1, 0, 0), wanted(2, "a")), ((1, 1, 0), wanted(3, "b"))])
    write_files(tmp_path, {"a": "2\n"})
    sources, contents = await reader.read([((0, 4, 0), wanted(5, "a"))])
    assert sources[0, 4, 0] is first[0][0, 0, 0] is first[0][1, 0, 0]
    assert contents[0, 4, 0] == first[1][1, 0, 0] != first[1][1, 1, 0]
    assert opened == [""]


def test_platforms_and_targets_share_what_is_fetched(tmp_path, web):
    url = web.answer("/f", (200, {}, b"x"))
    named = web.answer("/c.tar", (200, {}, packed({"file": "f\n"})))
    text = f"FROM scratch AS a\nADD {url} /\nFROM scratch\nCOPY --from=named file /\nADD {url} /g\n"
    context = write_files(tmp_path / "context", {"Dockerfile": text})
    given = ("--no-push", "--platform=linux/amd64,linux/arm64", "--target=a", "--target=1")
    Builder(tmp_path / "home").must(context, *given, f"--build-context=named={named}")
    assert sorted(path for path, _ in web.asked) == ["/c.tar", "/f"]


# Dockerfiles from elsewhere, and what they leave out


def test_a_dockerfile_by_url_and_on_the_standard_input(tmp_path, directory, web):
    builder = Builder(tmp_path / "home")
    text = FILES["Dockerfile"].encode()
    builder.must(directory, "--no-push", "--cache")
    url = web.answer("/Dockerfile", (200, {}, text))
    assert builder.must(directory, "--no-push", "--cache", "-f", url).outcomes == ["CACHED", "CACHED"]
    arguments = [directory, "--no-push", "--cache", "-f", "-"]
    assert given(builder, arguments, text).outcomes == ["CACHED", "CACHED"]
    ended = given(builder, arguments, b"FORM scratch\n")
    assert (ended.status, "Dockerfile:1" in ended.output) == (1, True)


def test_an_ignore_file_beside_the_dockerfile_of_an_archive(tmp_path):
    files = {**FILES, "other": FILES["Dockerfile"], "other.dockerignore": "*\n!sub\n"}
    (tmp_path / "c.tar").write_bytes(packed(files, "w"))
    arguments = [f"tar://{tmp_path}/c.tar", "--no-push", "-f", "other", f"--oci-layout-path={tmp_path}/layout"]
    Builder(tmp_path / "home").must(*arguments)
    shown = describe(tmp_path / "layout", 0)
    assert (" all/sub/file " in shown, " all/top " in shown) == (True, False)


def test_links_of_an_archive_lead_nowhere_outside(tmp_path):
    write_files(tmp_path, {"outside/Dockerfile": "FROM scratch\n", "outside/secret": "sesame\n"})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, target in (("Dockerfile", f"{tmp_path}/outside/secret"), ("sub", f"{tmp_path}/outside")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    (tmp_path / "c.tar").write_bytes(out.getvalue())
    builder = Builder(tmp_path / "home")
    ended = builder.build(f"tar://{tmp_path}/c.tar", "--no-push")
    assert (ended.status, "no Dockerfile" in ended.output, "sesame" in ended.output) == (1, True, False)
    ended = builder.build(f"tar://{tmp_path}/c.tar", "--no-push", "--context-sub-path=sub")
    assert (ended.status, "has no directory 'sub'" in ended.output) == (1, True)


# Named contexts


def test_named_contexts_of_every_kind(tmp_path, directory, web, repository):
    builder = Builder(tmp_path / "home")
    builder.must(directory, "--no-push", f"--oci-layout-path={tmp_path}/made", "-d", "example.com/x:v1")
    write_files(tmp_path / "named", {"file": "from a directory\n"})
    url = web.answer("/c.tar", (200, {}, packed({"file": "from the web\n"})))
    text = (
        "FROM layout AS first\nFROM plain\nCOPY --from=plain file /1\nCOPY --from=tar file /2\n"
        "COPY --from=git top /3\nCOPY --from=layout one /4\nCOPY --from=first all/top /5\n"
    )
    write_files(directory, {"Dockerfile": text})
    contexts = {
        "plain": tmp_path / "named",
        "tar": url,
        "git": repository + "#v1",
        "layout": f"oci-layout://{tmp_path}/made:v1",
        "unused": f"{web.url}/unused.tar",
    }
    arguments = [directory, "--no-push", f"--oci-layout-path={tmp_path}/layout", "--cache"]
    arguments += [f"--build-context={name}={place}" for name, place in contexts.items()]
    builder.must(*arguments)
    lines = [line.partition(" 0:0 ")[2] for line in describe(tmp_path / "layout", 0).splitlines() if "0:0" in line]
    assert lines == [
        'file "from a directory\\n"',
        '1 "from a directory\\n"',
        '2 "from the web\\n"',
        '3 "1\\n"',
        '4 "f\\n"',
        '5 "2\\n"',
    ]
    assert set(builder.must(*arguments).outcomes) == {"CACHED"}
    assert {path for path, _ in web.asked} == {"/c.tar"}


def test_a_named_context_that_cannot_be_fetched_shows_who_wanted_it(tmp_path, directory, web):
    write_files(directory, {"Dockerfile": "FROM scratch\nCOPY top /\nCOPY --from=tar file /\n"})
    ended = Builder(tmp_path / "home").build(directory, "--no-push", f"--build-context=tar={web.url}/none.tar")
    assert (ended.status, "answered 404" in ended.output, "Dockerfile:3" in ended.output) == (1, True, True)


def test_layouts_that_lack_the_image(tmp_path, directory):
    builder = Builder(tmp_path / "home")
    builder.must(directory, "--no-push", f"--oci-layout-path={tmp_path}/made", "-d", "example.com/x:v1")
    write_files(directory, {"Dockerfile": "FROM base\n"})
    for place, said in (("none", "cannot read"), ("made:v2", "has no image 'v2'")):
        ended = builder.build(directory, "--no-push", f"--build-context=base=oci-layout://{tmp_path}/{place}")
        assert (ended.status, said in ended.output, "Dockerfile:1" in ended.output) == (1, True, True), ended.output
