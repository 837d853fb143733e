"""What the tests of planning share: Dockerfile text → plan → steps, without files or registries."""

from collections.abc import Mapping, Sequence

from builder.dockerfile.parser import parse
from builder.planning.evaluate import Arguments, evaluate_plan
from builder.planning.graph import KeyedStage, context_reads, key_stages
from builder.planning.plan import ImageBase, Plan, Request, make_plan, predefined_args
from builder.planning.steps import StageSteps
from cache.keys import CacheKey, KeyBuilder
from cache.oci.config import ContainerConfig, ImageConfig, RootFS
from cache.oci.descriptor import Platform
from cache.oci.digest import Digest

AMD64 = Platform(os="linux", architecture="amd64")


def plan_of(
    text: str,
    build_args: Mapping[str, str] | None = None,
    target: str = "",
    image_triggers: Mapping[int, Sequence[str]] | None = None,
) -> Plan:
    request = Request(
        target=target,
        build_args=build_args or {},
        predefined=predefined_args(AMD64, AMD64, target),
        image_triggers=image_triggers or {},
    )
    return make_plan(parse(text, "Dockerfile"), request)


def base_image(layer: str = "base", **config: object) -> ImageConfig:
    container = ContainerConfig(**config)  # type: ignore[arg-type]  # any field, as the test needs
    return ImageConfig(
        os="linux", architecture="amd64", config=container, rootfs=RootFS(diff_ids=(Digest.of(layer.encode()),))
    )


def steps_of(
    text: str,
    build_args: Mapping[str, str] | None = None,
    *,
    base: ImageConfig | None = None,
    target: str = "",
) -> tuple[StageSteps, ...]:
    """The evaluated stages; every image that a stage starts from is ``base``."""
    triggers = {0: base.config.on_build or ()} if base else {}
    plan = plan_of(text, build_args, target, triggers)
    configs = {stage.index: base or base_image() for stage in plan.stages if isinstance(stage.base, ImageBase)}
    arguments = Arguments(build_args or {}, plan.global_args, predefined_args(AMD64, AMD64, target))
    return evaluate_plan(plan, configs, arguments, AMD64)


def keys_of(
    text: str,
    build_args: Mapping[str, str] | None = None,
    *,
    base: ImageConfig | None = None,
    content: str = "files",
    clamp_mtime_s: int | None = None,
) -> dict[int, KeyedStage]:
    """The stages with their keys; every copy from the context takes the same ``content``."""
    stages = steps_of(text, build_args, base=base)
    contents = {position: KeyBuilder(content).key() for position, _ in context_reads(stages)}
    return key_stages(stages, contents, clamp_mtime_s)


def layer_keys(text: str, build_args: Mapping[str, str] | None = None, **more: object) -> list[CacheKey]:
    """The keys of the last stage's layer steps."""
    stages = keys_of(text, build_args, **more)  # type: ignore[arg-type]  # handed on
    return [key for key in list(stages.values())[-1].keys if key is not None]
