"""Which stages a build needs, and in which order."""

import pytest

from builder.errors import BuildError, DockerfileError, PlanError
from builder.planning.plan import ImageBase, Plan, ScratchBase, StageBase
from builder.planning.sources import StageSource
from tests.builder.planning import plan_of


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.stages]


def test_unused_stages_are_dropped_and_needed_ones_come_first():
    plan = plan_of(
        """
        FROM a AS unused
        FROM b AS tools
        FROM c AS base
        FROM base AS build
        COPY --from=tools /t /t
        FROM scratch
        COPY --from=build /out /
        """
    )
    assert names(plan) == ["base", "tools", "build", "stage-4"]
    assert plan.stage(plan.target).base == ScratchBase()
    assert plan.stage(3).base == StageBase(2)
    assert plan.stage(3).takes_from == {(0, 0): StageSource(1)}


@pytest.mark.parametrize("target", ["build", "BUILD", "1"])
def test_target_by_name_or_number(target):
    plan = plan_of("FROM a AS base\nFROM base AS build\nFROM build AS last\n", target=target)
    assert names(plan) == ["base", "build"]
    assert plan.target == 1


def test_unknown_target_lists_the_stages():
    with pytest.raises(PlanError, match="no stage 'x' to build: the Dockerfile's stages are one, two"):
        plan_of("FROM a AS one\nFROM b AS two\n", target="x")


def test_base_names_are_expanded_with_global_and_platform_arguments():
    plan = plan_of(
        "ARG REGISTRY=registry.example\nARG IMAGE=${REGISTRY}/team/app\nFROM ${IMAGE}:$TARGETARCH\n",
        {"REGISTRY": "other.example:5000"},
    )
    base = plan.stages[0].base
    assert isinstance(base, ImageBase)
    assert str(base.reference) == "other.example:5000/team/app:amd64"
    assert plan.global_args == {"REGISTRY": "other.example:5000", "IMAGE": "other.example:5000/team/app"}


def test_a_stage_hides_an_image_of_the_same_name_only_after_it():
    plan = plan_of("FROM debian AS debian\nFROM debian\n")
    assert isinstance(plan.stage(0).base, ImageBase)
    assert plan.stage(1).base == StageBase(0)


def test_an_image_that_is_copied_from_twice_is_one_stage():
    plan = plan_of("FROM scratch\nCOPY --from=busybox /a /\nCOPY --from=busybox /b /\nCOPY --from=alpine /c /\n")
    assert names(plan) == ["busybox", "alpine", "stage-0"]
    assert {at[0]: origin.index for at, origin in plan.stage(0).takes_from.items()} == {0: 1, 1: 1, 2: 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a AS x\nCOPY --from=x /a /\n", "only an earlier stage"),
        ("FROM a\nCOPY --from=7 /a /\n", "only an earlier stage"),
        ("FROM a\nARG V=1\nCOPY --from=image:$V /a /\n", "variables are not expanded here"),
        ("FROM ${NOTHING}\n", "empty after expansion"),
        ("FROM UPPER/Case\n", "not a repository name"),
    ],
)
def test_what_cannot_be_planned_is_shown_in_its_place(text, message):
    with pytest.raises(DockerfileError, match=message) as caught:
        plan_of(text)
    assert isinstance(caught.value, BuildError)
    assert "^" in str(caught.value)
    assert "Dockerfile:" in str(caught.value)
