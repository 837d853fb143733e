"""Digests of contexts' files that are kept between builds: right whatever happens, and a file at rest is read once."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder import cli
from builder.contexts import file_digests
from builder.contexts.file_digests import FileDigests
from tests.builder.trees import make
from tests.integration.building import write_files

LATER_NS = 10**10


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return make(tmp_path / "context", {f"{number}": f"content {number}\n" for number in range(8)})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in order."""
    names: list[str] = []

    def file_digest(path: str) -> bytes:
        names.append(Path(path).name)
        return hashlib.sha256(Path(path).read_bytes()).digest()

    monkeypatch.setattr(file_digests, "file_digest", file_digest)
    return names


def digest_all(context: Path, *, settled: bool = True) -> None:
    """What a build does that begins when all files are at rest, or at once; all that it is told must be right."""
    at_ns = time.time_ns() + LATER_NS if settled else None
    state = context.with_name("state")
    state.mkdir(exist_ok=True)
    digests = FileDigests(state, context, state / "scratch", at_ns)
    for path in sorted(context.iterdir()):
        assert digests.of(str(path)) == hashlib.sha256(path.read_bytes()).digest()
    digests.save()


def kept(context: Path) -> list[Path]:
    return list((context.with_name("state") / "file-digests").iterdir())


def test_a_file_at_rest_is_read_once(context, read):
    for _ in range(3):
        digest_all(context)
    assert read == list("01234567")
    assert list((context.with_name("state") / "scratch").iterdir()) == []


def test_another_content_is_seen_whatever_its_times_and_size(context, read):
    digest_all(context)
    read.clear()
    file = context / "3"
    was = file.stat()
    file.write_text("CONTENT 3\n")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    shutil.copy2(context / "4", context / "new")
    (context / "new").replace(context / "4")
    (context / "5").rename(context / "renamed")
    digest_all(context)
    assert read == ["3", "4", "renamed"]  # renaming sets the change time


def test_what_was_just_written_is_read_again(context, read):
    digest_all(context, settled=False)
    digest_all(context, settled=False)
    assert read == list("0123456701234567")


def test_a_file_that_changes_while_it_is_read_is_not_kept(context, monkeypatch, read):
    plain = file_digests.file_digest

    def file_digest(path: str) -> bytes:
        digest = plain(path)
        if path.endswith("/2"):
            Path(path).write_text("content 2\n")
        return digest

    monkeypatch.setattr(file_digests, "file_digest", file_digest)
    digest_all(context)
    read.clear()
    digest_all(context)
    assert read == ["2"]


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "longer", "another kind", "a directory"])
def test_a_damaged_file_counts_for_nothing(context, read, damage):
    digest_all(context)
    (path,) = kept(context)
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(data[:-72])
        case "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "longer":
            path.write_bytes(data + data[-72:])
        case "another kind":
            path.write_bytes(b"X" + data[1:])
        case "a directory":
            path.mkdir()
    read.clear()
    digest_all(context)
    assert read == list("01234567")
    if damage != "a directory":
        assert path.read_bytes() == data


def test_files_beyond_the_bound_go_and_those_in_use_stay(context, read, monkeypatch):
    digest_all(context)
    monkeypatch.setattr(file_digests, "MOST_FILES", 4)
    for name in "0123":
        (context / name).unlink()
    (context / "8").write_text("8\n")
    digest_all(context)
    read.clear()
    digest_all(context)
    assert len(read) == 1  # five files, and room for four
    assert kept(context)[0].stat().st_size < 500


def test_contexts_beyond_the_bound_go(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "MAX_BYTES", 500)
    for number in range(4):
        digest_all(make(tmp_path / f"context-{number}", {"a": "a\n", "b": "b\n"}))
    assert len(kept(tmp_path / "context")) == 2  # of 201 bytes each


def test_builds_side_by_side_are_not_in_each_other_s_way(context):
    with ThreadPoolExecutor(8) as pool:
        for build in [pool.submit(digest_all, context) for _ in range(40)]:
            build.result()
    assert len(kept(context)) == 1


def test_the_second_build_reads_no_file(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(file_digests, "SETTLING_NS", -LATER_NS)
    dockerfile = "FROM scratch\nCOPY src /\nCOPY --from=other x /\n"
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile, "src/a": "a\n", "src/b": "b\n"})
    other = write_files(tmp_path / "other", {"x": "x\n"})
    given = [str(context), "--no-push", "--cache", f"--state-dir={tmp_path}/state", f"--build-context=other={other}"]
    assert cli.main(given) == 0
    assert len(kept(context)) == 2

    def file_digest(path: str) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(file_digests, "file_digest", file_digest)
    capfd.readouterr()
    assert cli.main(given) == 0
    assert capfd.readouterr().err.count("CACHED") == 2
