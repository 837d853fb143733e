"""A build whose every step hits pays for nothing that it does not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """\
import sys
from builder import cli
assert cli.main(sys.argv[1:]) == 0
print(*sys.modules)
"""
ABSENT = {
    *("aiohttp.web", "boto3", "botocore", "difflib", "isal", "rich", "tarfile", "zstandard"),
    *("builder.contexts.download", "builder.contexts.fetching", "builder.contexts.git_program"),
    *("builder.execution.mounting", "builder.execution.perform", "builder.execution.stage_root"),
    *("builder.layer.tarlayer", "builder.layer.unpack", "builder.outputs.files", "builder.outputs.image_files"),
    *("builder.sandbox", "proxy"),
}


def test_it_imports_nothing_that_does_steps(tmp_path: Path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch AS a\nCOPY x /\nFROM scratch\nCOPY --from=a /x /y\nCMD x\n")
    (context / "x").write_text("x\n")

    def build() -> tuple[str, set[str]]:
        command = [sys.executable, "-c", PROGRAM, str(context), "--no-push", "--cache", f"--state-dir={tmp_path}/state"]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return done.stderr, set(done.stdout.split())

    _, loaded = build()
    assert {"builder.execution.perform", "builder.sandbox", "isal"} <= loaded
    told, loaded = build()
    assert told.count("CACHED") == 3
    assert sorted(ABSENT & loaded) == []
