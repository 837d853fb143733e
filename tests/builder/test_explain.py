"""--dry-run and --explain: what a build would do, and why the cache did not have a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.events import Prospect
from builder.planning.dry_run import prospects
from builder.planning.explain import MAX_NOTE_BYTES, NotedStep, missed_steps, noted_steps, read_note, write_note
from tests.builder.planning import base_image, keys_of
from tests.integration.building import Builder, write_files

TEXT = "FROM a AS b\nARG A=1\nENV E=1\nWORKDIR /w\nRUN one\nCOPY x /x\nRUN two\n"


def reasons(old: str, new: str, **kwargs) -> list[str]:
    """Why each step of ``new`` that ``old`` did not have was missed, after a build of ``old``."""
    before, after = keys_of(old), keys_of(new, **kwargs)
    found = {key for stage in before.values() for key in stage.keys}
    note = write_note(noted_steps(before.values()))
    return [missed.why.removeprefix("unlike in the last build: ") for missed in missed_steps(after, after, found, note)]


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        ("RUN one", "RUN other", "the command"),
        ("ENV E=1", "ENV E=2", "the variable E"),
        ("ARG A=1", "ARG A=2", "the variable A"),
        ("ENV E=1", "ENV F=1 E=1", "the variable F (new)"),
        ("ENV E=1\n", "", "the variable E (no longer there)"),
        ("WORKDIR /w", "WORKDIR /v", "the path"),
        ("COPY x /x", "COPY x /y", "the destination"),
        ("COPY x /x", "COPY --chmod=700 --chown=1 x /x", "--chown, --chmod"),
        ("COPY x /x", "ADD x /x", "the last build had no such step in stage b"),
        ("RUN one", "RUN --mount=type=tmpfs,target=/t one", "what a mount shows (new), the options of a mount (new)"),
        ("RUN one", "USER u\nRUN one", "USER"),
        ("AS b", "AS c", ""),
    ],
)
def test_the_first_step_missed_tells_its_field_and_the_others_what_they_build_on(old: str, new: str, first: str):
    found = reasons(TEXT, TEXT.replace(old, new))
    assert found[:1] == ([first] if first else [])
    assert all("what it builds on" in why for why in found[1:])


def test_of_a_new_base_and_of_other_files():
    assert reasons(TEXT, TEXT, base=base_image("rebuilt"))[0] == "the layers of the base image"
    assert reasons(TEXT, TEXT, content="other files") == ["the files that it takes", "what it builds on"]


def test_of_an_entry_that_is_gone_and_of_no_note_at_all():
    stages = keys_of("FROM a\nRUN one\n")
    (gone,) = missed_steps(stages, stages, (), write_note(noted_steps(stages.values())))
    assert "gone from the cache" in gone.why
    (new,) = missed_steps(stages, stages, (), "")
    assert "no note" in new.why
    assert read_note("{}") == ()
    assert write_note([NotedStep("s", 0, (("x", "y" * MAX_NOTE_BYTES),))]) == ""


def test_a_note_has_no_value_in_it():
    note = write_note(noted_steps(keys_of("FROM a\nARG PASS=hunter2\nRUN echo hunter2\n").values()))
    assert "PASS" in note
    assert "hunter2" not in note


def test_prospects_tell_of_every_step():
    stages = keys_of("FROM a AS b\nRUN one\nFROM a\nLABEL l=1\nCOPY --from=b x /x\nRUN two\n")
    keys = [key for stage in stages.values() for key in stage.keys]
    assert [p.prospect for p in prospects(stages, 1, ())] == [
        Prospect.MISS,
        Prospect.METADATA,
        Prospect.MISS,
        Prospect.MISS,
    ]
    cached = [p.prospect for p in prospects(stages, 1, {keys[2]})]
    assert cached == [Prospect.UNUSED, Prospect.METADATA, Prospect.HIT, Prospect.MISS]


def files_below(directory: Path) -> list[Path]:
    """All but what a build of any kind notes of files that lay still before it: that depends on the time."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path for path in found if path.parent.name != "file-digests")


def test_in_builds(tmp_path: Path):
    text = "FROM scratch AS out\nARG MODE\nCOPY a /a\nCOPY --chmod=$MODE b /b\n"
    context = write_files(tmp_path / "context", {"Dockerfile": text, "a": "one", "b": "two"})
    builder = Builder(tmp_path / "home")
    arguments = (context, "--cache", "--build-arg=MODE=600")
    first = builder.must(*arguments, "--dry-run", "--explain").output
    assert first.count(": to be built, key ") == first.count("no note of an earlier build") == 2
    assert not files_below(tmp_path / "home")
    builder.must(*arguments, "--no-push")
    assert builder.must(*arguments, "--dryrun").output.count(": in the cache, key ") == 2
    (context / "b").write_text("three")
    before = files_below(tmp_path / "home")
    changed = builder.must(*arguments, "--dry-run", "--explain").output
    assert "[out 3/3] COPY --chmod=$MODE b /b: not in the cache: unlike in the last build: the files that" in changed
    assert files_below(tmp_path / "home") == before
    built = builder.must(context, "--cache", "--no-push", "--explain", "--build-arg=MODE=700")
    assert "unlike in the last build: the files that it takes, --chmod" in built.output
    assert [line for line in built.rebuilt if " COPY " in line] == built.rebuilt[-1:]
