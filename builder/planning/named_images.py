"""The images that a Dockerfile names, so that they can be fetched before a build (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from builder.dockerfile.instructions import Dockerfile
from builder.planning.plan import ImageBase, Plan, Request, make_plan, predefined_args
from cache.oci.descriptor import Platform
from cache.oci.reference import Reference

Image = tuple[Reference, Platform]


def named_images(
    dockerfile: Dockerfile,
    build_args: Mapping[str, str],
    platforms: Iterable[Platform],
    build_platform: Platform,
    triggers: Mapping[Image, Sequence[str]],
) -> list[Image]:
    """The images that any of its stages starts from or takes files from, each once for each platform.

    ``triggers`` are what is known of these images' ONBUILD, which may name further ones. Raises DockerfileError and
    PlanError.
    """
    found: dict[Image, None] = {}
    for platform in platforms:
        predefined = predefined_args(platform, build_platform, "")
        for number in range(len(dockerfile.stages)):
            request = Request(target=str(number), build_args=build_args, predefined=predefined)
            bases = _bases(make_plan(dockerfile, request), platform)
            wanted = {index: triggers.get(image, ()) for index, image in bases}
            plan = make_plan(dockerfile, replace(request, image_triggers=wanted))
            found |= dict.fromkeys(image for _, image in _bases(plan, platform))
    return list(found)


def _bases(plan: Plan, platform: Platform) -> list[tuple[int, Image]]:
    """The images of a plan, each with the index of its stage."""
    return [
        (stage.index, (stage.base.reference, stage.base.platform or platform))
        for stage in plan.stages
        if isinstance(stage.base, ImageBase) and isinstance(stage.base.reference, Reference)
    ]
