"""Unpacked layers that builds share: believed only as they were, and never taken from a build that lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.layer import unpacked
from builder.layer.unpacked import UnpackedLayers
from cache.oci.digest import Digest
from tests.programs import ROOT

A, B, C = (Digest("sha256", letter * 64) for letter in "abc")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "unpacked"
    directory.mkdir()
    return directory


def layers(shared: Path, max_bytes: int = 10**6) -> UnpackedLayers:
    return UnpackedLayers(shared, max_bytes)


def a_layer(directory: Path, content: str = "content") -> Path:
    (directory / "etc").mkdir(parents=True)
    (directory / "etc/file").write_text(content)
    (directory / "link").symlink_to("etc/file")
    return directory


def test_a_kept_layer_is_found_by_the_next_build(shared: Path, tmp_path: Path) -> None:
    first, second = layers(shared), layers(shared)
    assert second.take(A) is None
    kept = first.keep(A, a_layer(tmp_path / "work/1"))
    assert second.take(A) == kept
    assert (kept / "etc/file").read_text() == "content"
    assert second.take(B) is None
    first.close()
    second.close()
    assert os.listdir(tmp_path / "work") == []


def test_the_second_of_two_that_unpacked_the_same_keeps_its_own(shared: Path, tmp_path: Path) -> None:
    first, second = layers(shared), layers(shared)
    kept = first.keep(A, a_layer(tmp_path / "work/1"))
    own = second.keep(A, a_layer(tmp_path / "work/2"))
    assert own == tmp_path / "work/2"
    assert own != kept
    assert (own / "etc/file").read_text() == (kept / "etc/file").read_text()


def test_one_build_at_a_time_unpacks_a_layer(shared: Path) -> None:
    mine = layers(shared)
    program = f"""\
import sys
from pathlib import Path
from builder.layer.unpacked import UnpackedLayers
from cache.oci.digest import Digest
theirs = UnpackedLayers(Path({str(shared)!r}), 1)
for line in sys.stdin:
    print(theirs.begin(Digest("sha256", line.strip() * 64)), flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def they_begin(letter: str) -> bool:
            print(letter, file=other.stdin, flush=True)
            return other.stdout.readline() == "True\n"

        assert mine.begin(A)
        assert not they_begin("a")
        assert they_begin("b")
        assert not mine.begin(B)
        mine.end(A)
        assert they_begin("a")
        other.kill()
    assert mine.begin(A)  # whoever dies gives its turns up
    assert mine.begin(B)
    mine.close()


def change_content(layer: Path) -> None:
    status = os.stat(layer / "etc/file")
    (layer / "etc/file").write_text("CONTENT")
    os.utime(layer / "etc/file", ns=(status.st_atime_ns, status.st_mtime_ns))


def add_file(layer: Path) -> None:
    status = os.stat(layer)
    (layer / "new").touch()
    os.utime(layer, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_seal(layer: Path) -> None:
    (layer.parent / "seal").unlink()


def cut_seal(layer: Path) -> None:
    os.truncate(layer.parent / "seal", 10)


def open_root(layer: Path) -> None:
    layer.chmod(0o777)


@pytest.mark.parametrize("damage", [change_content, add_file, remove_seal, cut_seal, open_root])
def test_what_is_not_as_it_was_sealed_is_removed(shared: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first = layers(shared)
    kept = first.keep(A, a_layer(tmp_path / "work/1"))
    first.close()
    damage(kept)
    second = layers(shared)
    assert second.take(A) is None
    assert os.listdir(shared) == []
    assert second.keep(A, a_layer(tmp_path / "work/2")).parent.parent == shared


def test_what_another_boot_left_is_not_believed(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = layers(shared)
    first.keep(A, a_layer(tmp_path / "work/1"))
    first.close()
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(unpacked, "_BOOT_ID", tmp_path / "boot_id")
    assert layers(shared).take(A) is None


def test_the_least_recently_used_go_when_there_is_too_much(shared: Path, tmp_path: Path) -> None:
    first = layers(shared, max_bytes=250_000)
    for number, chain in enumerate((A, B)):
        first.keep(chain, a_layer(tmp_path / f"work/{number}", "x" * 100_000))
    first.close()
    now_s = time.time()
    for age_s, chain in ((2000, A), (1000, B)):
        os.utime(shared / chain.hex / "seal", (now_s - age_s, now_s - age_s))
    second = layers(shared, max_bytes=250_000)
    assert second.take(A) is not None
    second.keep(C, a_layer(tmp_path / "work/3", "x" * 100_000))
    second.close()
    assert sorted(os.listdir(shared)) == [A.hex, C.hex]


def test_what_a_living_build_uses_is_not_removed(shared: Path, tmp_path: Path) -> None:
    living = layers(shared, max_bytes=0)
    kept = living.keep(A, a_layer(tmp_path / "work/1"))
    layers(shared, max_bytes=0).close()
    assert (kept / "etc/file").exists()
    living.close()
    assert os.listdir(shared) == []


def test_what_a_killed_build_left_half_removed_goes(shared: Path) -> None:
    a_layer(shared / ".gone-0123456789abcdef")
    layers(shared).close()
    assert os.listdir(shared) == []
