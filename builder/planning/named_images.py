"""The images that a Dockerfile names, so that they can be fetched before a build (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.dockerfile.instructions import Dockerfile
from builder.planning.plan import ImageBase, Request, make_plan, predefined_args
from cache.oci.descriptor import Platform
from cache.oci.reference import Reference


def named_images(
    dockerfile: Dockerfile, build_args: Mapping[str, str], platforms: Iterable[Platform], build_platform: Platform
) -> dict[Reference, list[Platform]]:
    """The images that any of its stages starts from or takes files from, and for which platforms.

    Triggers (ONBUILD) of images are not known here. Raises DockerfileError and PlanError.
    """
    found: dict[Reference, list[Platform]] = {}
    for platform in platforms:
        predefined = predefined_args(platform, build_platform, "")
        for number in range(len(dockerfile.stages)):
            request = Request(target=str(number), build_args=build_args, predefined=predefined)
            for stage in make_plan(dockerfile, request).stages:
                if isinstance(stage.base, ImageBase) and isinstance(stage.base.reference, Reference):
                    wanted = found.setdefault(stage.base.reference, [])
                    needed = stage.base.platform or platform
                    wanted += [needed] if needed not in wanted else []
    return found
