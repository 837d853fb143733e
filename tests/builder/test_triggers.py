"""ONBUILD of a base image: what it had put off is done by the build on it, and may need further images."""

from __future__ import annotations

import pytest

from tests.builder.case_files import describe
from tests.integration.building import Builder, push_base, write_files


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path / "home")


def test_triggers_of_an_image_are_done_once(tmp_path, builder, registry, busybox_layout):
    base = f"{registry.host}/{push_base(busybox_layout, registry)}"
    tools = write_files(
        tmp_path / "tools", {"Dockerfile": "FROM scratch\nCOPY tool /\nONBUILD COPY never /\n", "tool": "t\n"}
    )
    builder.must(tools, f"--destination={registry.host}/tools:1")
    text = f"FROM {base}\nONBUILD COPY --from={registry.host}/tools:1 /tool /tool\nONBUILD RUN echo $0 > /trigger\n"
    parent = write_files(tmp_path / "parent", {"Dockerfile": text})
    builder.must(parent, f"--destination={registry.host}/parent:1")

    child = write_files(tmp_path / "child", {"Dockerfile": f"FROM {registry.host}/parent:1\nRUN cat /tool > /mine\n"})
    given = (child, "--cache", f"--destination={registry.host}/child:1", f"--oci-layout-path={tmp_path}/layout")
    builder.must(*given)
    told = describe(tmp_path / "layout", 1)
    assert [line.split()[2] for line in told.splitlines() if line.startswith("  -")] == ["tool", "trigger", "mine"]
    assert "OnBuild" not in told
    assert builder.must(*given).outcomes == ["CACHED"] * 3

    grandchild = write_files(tmp_path / "grandchild", {"Dockerfile": f"FROM {registry.host}/child:1\nLABEL a=b\n"})
    assert len(builder.must(grandchild, "--no-push").outcomes) == 1


def test_a_trigger_that_cannot_be_done_says_whose_it_is(tmp_path, builder, registry):
    parent = write_files(
        tmp_path / "parent", {"Dockerfile": "FROM scratch\nCOPY f /\nONBUILD COPY missing /\n", "f": ""}
    )
    builder.must(parent, f"--destination={registry.host}/parent:1")
    child = write_files(tmp_path / "child", {"Dockerfile": f"FROM {registry.host}/parent:1\n"})
    ended = builder.build(child, "--no-push")
    assert ended.status == 1
    assert f"ONBUILD of {registry.host}/parent:1:1" in ended.output
    assert "'missing' is not there" in ended.output
