"""--chmod as chmod(1) does it."""

import os
import stat
import subprocess

import pytest

from builder.execution.chmod import ModeChange

TEXTS = "644 0 7777 u=rwX,go=rX a-x +x u+s,g+s o= g=u u=g,g=o +t u-w+x go-rwx,a+X ug=rw"
# GNU's program, unlike BSD's and ours, leaves a directory's set-ids alone.
KINDS = [
    *(("file", mode) for mode in (0, 0o644, 0o711, 0o2750, 0o4777)),
    *(("directory", m) for m in (0, 0o755, 0o700)),
]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("text", TEXTS.split())
def test_as_the_program(tmp_path, mode, text, kind):
    path = tmp_path / "x"
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(mode)
    before = os.lstat(path).st_mode
    argument = text.rjust(5, "0") if text.isdigit() else text  # five digits also take set-ids from a directory
    subprocess.run(["chmod", "--", argument, path], check=True, umask=0)
    assert ModeChange.parse(text).apply(before) == os.lstat(path).st_mode


@pytest.mark.parametrize("text", ["", "8", "00000644x", "77777", "u+q", "u", "x=u+", "rwx", "u=rw,", "u=gr"])
def test_what_is_no_mode(text):
    with pytest.raises(ValueError, match="is not a mode"):
        ModeChange.parse(text)


def test_the_type_stays():
    assert stat.S_ISLNK(ModeChange.parse("u=r").apply(stat.S_IFLNK | 0o777))
