"""A key changes with everything that can change the layer, and with nothing else."""

import pytest

from tests.builder.planning import base_image, keys_of, layer_keys

BASE = "FROM a\nARG A=1\nENV E=1\nUSER u\nWORKDIR /w\nRUN one\nCOPY x /x\nRUN two\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RUN one", "RUN other"),
        ("RUN one", 'RUN ["one"]'),
        ("ENV E=1", "ENV E=2"),
        ("ARG A=1", "ARG A=2"),
        ("USER u", "USER v"),
        ("WORKDIR /w", "WORKDIR /v"),
        ("RUN one", 'SHELL ["/bin/bash", "-c"]\nRUN one'),
    ],
)
def test_what_a_command_can_see_changes_all_keys_from_there_on(old, new):
    before, after = layer_keys(BASE), layer_keys(BASE.replace(old, new))
    assert before[-1] != after[-1]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "line", ["LABEL a=b", "EXPOSE 80", "CMD x", 'ENTRYPOINT ["x"]', "VOLUME /v", "STOPSIGNAL TERM", "# a comment"]
)
def test_metadata_changes_no_key(line):
    assert layer_keys(BASE.replace("RUN one", f"{line}\nRUN one")) == layer_keys(BASE)


def test_environment_does_not_change_a_copy():
    text = "FROM a\nCOPY x /x\n"
    assert layer_keys("FROM a\nENV E=1\nCOPY x /x\n") == layer_keys(text)


@pytest.mark.parametrize("line", ["COPY x /y", "COPY --chown=1 x /x", "COPY --chmod=700 x /x", "ADD x /x"])
def test_how_files_land_changes_a_copy(line):
    assert layer_keys(BASE.replace("COPY x /x", line))[2] != layer_keys(BASE)[2]


def test_content_changes_a_copy_and_what_follows_but_not_what_precedes():
    before, after = layer_keys(BASE), layer_keys(BASE, content="other files")
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    assert before[3] != after[3]


def test_a_base_counts_by_its_layers_not_by_its_name_or_labels():
    text = "FROM {}\nRUN x\n"
    assert layer_keys(text.format("a")) == layer_keys(text.format("b:other"))
    assert layer_keys(text.format("a"), base=base_image(labels={"l": "1"})) == layer_keys(text.format("a"))
    assert layer_keys(text.format("a"), base=base_image("rebuilt")) != layer_keys(text.format("a"))


def test_a_base_s_environment_reaches_the_key():
    assert layer_keys("FROM a\nRUN x\n", base=base_image(env=("E=1",))) != layer_keys("FROM a\nRUN x\n")


def test_proxy_arguments_change_no_key():
    assert layer_keys(BASE, {"HTTPS_PROXY": "http://p"}) == layer_keys(BASE)


def test_the_time_clamp_separates_caches():
    assert layer_keys(BASE, clamp_mtime_s=0) != layer_keys(BASE)


@pytest.mark.parametrize("line", ["COPY --link x /x", "ADD --link x /x"])
def test_the_time_clamp_separates_layers_that_lie_on_any_other(line):
    text = f"FROM a\n{line}\n"
    assert layer_keys(text, clamp_mtime_s=0) != layer_keys(text)
    assert layer_keys(text, base=base_image("rebuilt")) == layer_keys(text)


def test_a_copy_from_a_stage_follows_that_stage():
    text = "FROM a AS build\nRUN {}\nFROM b\nRUN first\nCOPY --from=build /out /\n"
    first, second = layer_keys(text.format("make")), layer_keys(text.format("make all"))
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_a_stage_on_a_stage_continues_its_chain():
    apart = keys_of("FROM a AS one\nRUN x\nFROM one\nRUN y\n")
    together = layer_keys("FROM a\nRUN x\nRUN y\n")
    assert [apart[0].keys[0], apart[1].keys[0]] == together
