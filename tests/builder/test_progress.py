"""Progress for programs: one JSON object a line, whatever happens."""

from __future__ import annotations

import io
import json

import pytest

from builder import cli, events
from builder.progress import JsonProgress

STEP = events.StepName("build", 1, 2, "RUN true\n\nmore")


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (events.StepStarted(STEP), {"step": {"stage": "build", "number": 1, "total": 2, "text": "RUN true\n\nmore"}}),
        (events.StepEnded(STEP, events.Outcome.DONE, 1.5, 10), {"outcome": "DONE", "seconds": 1.5, "layer_bytes": 10}),
        (events.StepOutput(STEP, b"a\nb\xff"), {"data": "a\nb\ufffd"}),
        (events.Planned(STEP, "ab", events.Prospect.HIT), {"key": "ab", "prospect": "in the cache"}),
        (events.Warned("two\nlines"), {"text": "two\nlines"}),
        (events.Pushed("r/a:1", "sha256:0", 1, 2, 3, 0.5), {"destination": "r/a:1", "reused_blobs": 3}),
    ],
)
def test_an_event_is_one_line_with_its_name_and_time(event: events.Event, fields: dict[str, object]):
    stream = io.StringIO()
    JsonProgress(stream)(event)
    (line,) = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert shown.pop("event") == type(event).__name__
    assert shown.pop("at").endswith("Z")
    assert {name: shown[name] for name in fields} == fields


def test_a_failed_build_ends_with_an_object_too(tmp_path, capsys):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    state = f"--state-dir={tmp_path}/state"
    assert cli.main([str(tmp_path), "--no-push", "--progress=json", state]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["event"] == "Failed"
    assert "Dockerfile:2" in lines[-1]["text"]
