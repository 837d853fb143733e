"""A whole build, from the Dockerfile to the last push: puts the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from builder import events
from builder.bases import BaseImages, ResolvedBase
from builder.contexts.context import ContextReader, read_dockerfile
from builder.contexts.local_inputs import LocalInputs, local_inputs
from builder.dockerfile.instructions import Dockerfile
from builder.execution.execute import BuiltStage, Executor
from builder.execution.step_cache import StepCache
from builder.execution.workshop import Workshop
from builder.findings import Findings
from builder.layer.origins import BuildLayers, Origin, RegistryOrigin
from builder.layer.rootfs import Tree
from builder.options import BuildOptions
from builder.outputs.conversions import Conversions
from builder.outputs.deliver import Delivery, Product
from builder.outputs.exports import step_format
from builder.outputs.push import Destination, check_permission
from builder.planning.checks import CHECK_ARGUMENT
from builder.planning.dry_run import prospects
from builder.planning.evaluate import Arguments, evaluate_plan
from builder.planning.explain import missed_steps, note_key, noted_steps, write_note
from builder.planning.graph import KeyedStage, context_reads, key_stages, needed_stages, remote_reads
from builder.planning.lint_steps import foreign_bases, ignored_sources, undefined_variables
from builder.planning.metadata import with_labels
from builder.planning.plan import Plan, Request, make_plan, predefined_args
from builder.planning.sources import ContextSource
from builder.planning.steps import Metadata, StageSteps
from builder.workspace import work_directory
from cache.disk.filesystem import FilesystemStore
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.layers import RegistryLayerCache, StoreLayerCache
from cache.oci.descriptor import Platform
from cache.oci.layer import Layer
from cache.oci.peers import Peers, open_peers

_ABANDONED_S = 3600.0
"""Nobody has written to it for so long: its build was killed."""


async def run_build(options: BuildOptions, environ: Mapping[str, str], listen: events.Listener) -> None:
    """Builds the image that ``options`` describe and delivers it everywhere it shall go.

    Raises BuildError, OCIError or CacheError; nothing is delivered half then.
    """
    async with AsyncExitStack() as stack:
        work = stack.enter_context(work_directory(options.state_dir))
        inputs = await local_inputs(options, work / "inputs", environ, listen)
        predefined = predefined_args(options.platform, options.build_platform, options.target)
        dockerfile, findings = await _read_dockerfile(options, inputs, predefined, listen)
        targets = options.all_targets
        if options.check_only and targets == ("",):
            targets = tuple(map(str, range(len(dockerfile.stages))))
        variants = [_variant(options, target, platform) for target in targets for platform in options.platforms]
        plans = [make_plan(dockerfile, variant.request) for variant in variants]
        peers = await stack.enter_async_context(open_peers(options.registry, environ))
        stores = await stack.enter_async_context(_open_stores(options, work))
        layers = BuildLayers(*stores.all, keeps=partial(_is_wanted_again, options, stores), listen=listen)
        stack.push_async_callback(layers.close)
        workshop = Workshop(options, work, layers, environ, listen)
        stack.push_async_callback(workshop.close)
        cache = _step_cache(options, peers, stores, layers, listen)
        stack.push_async_callback(cache.abandon)
        build = _Build(
            options=options,
            dockerfile=dockerfile,
            findings=findings,
            contexts=ContextReader(inputs.open_context),
            bases=BaseImages(peers.pull),
            peers=peers,
            layers=layers,
            workshop=workshop,
            cache=cache,
            listen=listen,
        )
        try:
            products = await build.products(dict(zip(variants, plans, strict=True)))
            if products:
                await build.deliver(products)
        finally:
            if not options.dry_run:
                await cache.finish()  # after a failed step too: the next try need not do again what went well


async def _read_dockerfile(
    options: BuildOptions, inputs: LocalInputs, predefined: Mapping[str, str], listen: events.Listener
) -> tuple[Dockerfile, Findings]:
    """The Dockerfile, and what the checks of its text have found. Raises BuildError, also where that is to be fatal."""
    given = options.build_args.get(CHECK_ARGUMENT)
    dockerfile, found, checks = await asyncio.to_thread(read_dockerfile, inputs.dockerfile, predefined, given)
    findings = Findings(options.dockerfile.name, checks, listen)
    findings.tell(found)
    if not options.check_only:
        findings.refuse(check_only=False)
    return dockerfile, findings


@dataclass(frozen=True, slots=True, eq=False)
class _Variant:
    """One of the images of a build: a target for a platform, and what that asks of the Dockerfile."""

    platform: Platform
    request: Request


def _variant(options: BuildOptions, target: str, platform: Platform) -> _Variant:
    request = Request(
        target=target,
        build_args=options.build_args,
        predefined=predefined_args(platform, options.build_platform, target),
        contexts=options.contexts,
    )
    return _Variant(platform, request)


@dataclass(frozen=True, slots=True)
class _Stores:
    """Where layers lie on this machine.

    ``made`` is for those that the build makes or fetches; ``cache`` the local cache where that is one, ``warmed`` what
    has layers of base images. Only the first is written to.
    """

    made: FilesystemStore
    cache: FilesystemStore | None = None
    warmed: FilesystemStore | None = None

    @property
    def all(self) -> tuple[FilesystemStore, ...]:
        """Each once, ``made`` first."""
        return tuple(dict.fromkeys(store for store in (self.made, self.cache, self.warmed) if store is not None))


@asynccontextmanager
async def _open_stores(options: BuildOptions, work: Path) -> AsyncIterator[_Stores]:
    cache = options.cache
    local = cache.enabled and cache.repository is None
    cached = FilesystemStore(cache.directory or options.state_dir / "store") if local else None
    made = cached if cached is not None and cache.save else FilesystemStore(work / "store")
    stores = _Stores(made, cached, FilesystemStore(cache.warmed) if cache.warmed is not None else None)
    try:
        yield stores
    finally:
        await made.sweep(_ABANDONED_S)  # what killed builds were writing
        for store in stores.all:
            await store.close()


def _is_wanted_again(options: BuildOptions, stores: _Stores, origin: Origin) -> bool:
    """Whether the bytes of a layer that is fetched for a step will be asked for once more.

    By a later build, by an archive, or by a registry that cannot get them by itself.
    """
    if not isinstance(origin, RegistryOrigin):
        return False  # it lies on this machine
    exports = options.output.exports
    elsewhere = any(name.host != origin.client.name for export in exports if export.push for name in export.names)
    return elsewhere or stores.made is stores.cache or any(export.kind in ("docker", "oci") for export in exports)


def _step_cache(
    options: BuildOptions, peers: Peers, stores: _Stores, layers: BuildLayers, listen: events.Listener
) -> StepCache:
    use, layer_format = options.cache, step_format(options.output.exports)
    if stores.cache is not None:
        return StepCache(StoreLayerCache(stores.cache), None, layers, listen, use, layer_format)
    if not use.enabled or use.repository is None:
        return StepCache(None, None, layers, listen)
    repository = use.repository.repository
    client = peers.push.client(use.repository.host, repository)
    cache, origin = RegistryLayerCache(client, repository), RegistryOrigin(client, repository)
    return StepCache(cache, origin, layers, listen, use, layer_format)


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What is known of one image before any file is read: its stages as steps, and what these come from."""

    plan: Plan
    bases: Mapping[int, ResolvedBase]
    arguments: Arguments
    stages: tuple[StageSteps, ...]


@dataclass(frozen=True, slots=True)
class _Build:
    options: BuildOptions
    dockerfile: Dockerfile
    findings: Findings
    contexts: ContextReader
    bases: BaseImages
    peers: Peers
    layers: BuildLayers
    workshop: Workshop
    cache: StepCache
    listen: events.Listener

    async def products(self, plans: Mapping[_Variant, Plan]) -> dict[str, dict[Platform, Product]]:
        """The finished stages by target and platform: all that can be known is looked up before anything is done.

        None at all for a dry run, which only tells, and for one that only checks.
        """
        permitted = asyncio.create_task(self._check_permission())
        try:
            evaluated = {variant: await self._evaluate(variant, plan) for variant, plan in plans.items()}
            await self._lint(evaluated)
            if self.options.check_only:
                return {}
            prepared = {v: (done.plan.target, await self._executor(done)) for v, done in evaluated.items()}
            stages = [stage for _, executor in prepared.values() for stage in executor.stages.values()]
            await self.cache.look_up(self._looked_up(stages))
            await permitted
        finally:
            permitted.cancel()
            await asyncio.wait([permitted])
        for variant, (target, executor) in prepared.items():
            await self._tell(variant, executor, target)
        if self.options.dry_run:
            return {}
        products: dict[str, dict[Platform, Product]] = {}
        for variant, (target, executor) in prepared.items():
            product = await self._product(variant, executor, target)
            products.setdefault(variant.request.target, {})[variant.platform] = product
            self.cache.share_made()
        return {"": products[self.options.target], **products}

    def _looked_up(self, stages: Iterable[KeyedStage]) -> Iterator[CacheKey]:
        for step, key in (keyed for stage in stages for keyed in stage.keyed_steps()):
            if not isinstance(step, Metadata) and key is not None and self.cache.covers(step):
                yield key

    async def _evaluate(self, variant: _Variant, plan: Plan) -> _Evaluated:
        plan, bases = await self._with_bases(variant, plan)
        configs = {index: base.config for index, base in bases.items()}
        arguments = Arguments(self.options.build_args, plan.global_args, variant.request.predefined)
        return _Evaluated(plan, bases, arguments, evaluate_plan(plan, configs, arguments, variant.platform))

    async def _lint(self, evaluated: Mapping[_Variant, _Evaluated]) -> None:
        """Tells what the checks find. Raises BuildError where that is to be fatal."""
        for variant, done in evaluated.items():
            configs = {index: base.config for index, base in done.bases.items()}
            self.findings.tell(foreign_bases(done.plan, configs, variant.platform))
            self.findings.tell(undefined_variables(done.stages, done.arguments, done.plan.escape))
            reads = (read for _, read in context_reads(done.stages) if read.context == ContextSource())
            contexts = await self.contexts.open(reads)
            if (main := contexts.get("")) is not None:
                self.findings.tell(ignored_sources(done.stages, main.ignore))
        self.findings.refuse(check_only=self.options.check_only)

    def _note_key(self, variant: _Variant) -> CacheKey:
        names = [f"{name.host}/{name.repository}" for name in self.options.output.destinations]
        return note_key(names, self.options.dockerfile.name, variant.request.target, str(variant.platform))

    async def _tell(self, variant: _Variant, executor: Executor, target: int) -> None:
        """What was asked to know before anything is done."""
        if self.options.explain:
            needed = needed_stages(executor.stages, target, self.cache)
            note = await self.cache.recall_note(self._note_key(variant))
            for missed in missed_steps(executor.stages, needed, self.cache, note):
                self.listen(missed)
        if self.options.dry_run or self.options.print_plan:
            for planned in prospects(executor.stages, target, self.cache):
                self.listen(planned)

    async def _product(self, variant: _Variant, executor: Executor, target: int) -> Product:
        """The finished stage; a build that did something leaves a note of what it was keyed by."""
        needed = needed_stages(executor.stages, target, self.cache)
        missed = any(key and key not in self.cache for index in needed for key in executor.stages[index].keys)
        built = await executor.build(target)
        if self.options.ignored or self.options.single_snapshot:
            built = await self._finished(built)
        if missed:
            note = write_note(noted_steps(executor.stages.values()))
            created = _rfc3339(self.options.clamp_mtime_s)
            self.cache.save(CachedStep(self._note_key(variant), None, note=note, created=created))
        labels = self.options.labels
        config = with_labels(built.config, labels.items()) if labels else built.config
        base = frozenset(layer.descriptor.digest for layers in executor.base_layers.values() for layer in layers)
        files = partial(self._files, built.layers) if self.options.ignored else partial(executor.files, target)
        return Product(config, built.layers, base, files)

    async def _finished(self, built: BuiltStage) -> BuiltStage:
        """The stage with layers that are other than its steps made them."""
        from builder.execution.finishing import Finishing

        options = self.options
        layer_format = step_format(options.output.exports)
        finishing = Finishing(
            self.layers, self.cache, self.listen, layer_format, options.ignored, single=options.single_snapshot
        )
        return await finishing.finish(built)

    async def _files(self, layers: Sequence[Layer]) -> Tree:
        root = await self.workshop.roots().new_root()
        await root.apply(layers)
        return root.tree

    async def _with_bases(self, variant: _Variant, plan: Plan) -> tuple[Plan, dict[int, ResolvedBase]]:
        """The plan with what its base images want done (ONBUILD), which may need further images, and all of these."""
        triggers: dict[int, Sequence[str]] = {}
        while True:
            bases = await self.bases.resolve(plan, variant.platform)
            found = {index: base.config.config.on_build for index, base in bases.items()}
            known, triggers = triggers, {index: texts for index, texts in found.items() if texts}
            if triggers == known:
                return plan, bases
            plan = make_plan(self.dockerfile, replace(variant.request, image_triggers=triggers))

    async def _executor(self, done: _Evaluated) -> Executor:
        options, bases, stages = self.options, done.bases, done.stages
        sources, contents = await self.contexts.read(context_reads(stages))
        fetched = list(remote_reads(stages))
        digests = await asyncio.gather(*(self.workshop.remotes().content(remote, step) for _, step, remote in fetched))
        contents |= {position: digest for (position, _, _), digest in zip(fetched, digests, strict=True)}
        for base in bases.values():
            for layer in base.layers:
                self.layers.add(layer, base.origin)
        clamp = options.clamp_mtime_s
        return Executor(
            stages=key_stages(stages, contents, clamp),
            base_layers={index: base.layers for index, base in bases.items()},
            cache=self.cache,
            workshop=self.workshop,
            sources=sources,
            listen=self.listen,
            created=_rfc3339(clamp),
        )

    async def _check_permission(self) -> None:
        output = self.options.output
        if output.push.check_permission and not (self.options.dry_run or self.options.check_only):
            repositories = {(name.host, name.repository): name for name in output.destinations}
            clients = ((name, self.peers.push.client(name.host, name.repository)) for name in repositories.values())
            await asyncio.gather(*(check_permission(Destination(name, client)) for name, client in clients))

    async def deliver(self, products: Mapping[str, Mapping[Platform, Product]]) -> None:
        """Pushes the images to every destination and writes every file that was asked for."""
        delivery = Delivery(
            self.options.output,
            self.layers,
            self.peers.push,
            Conversions(self.layers, step_format(self.options.output.exports)),
            self.listen,
            self.options.clamp_mtime_s,
        )
        await delivery.deliver(products)


def _rfc3339(clamp_mtime_s: int | None) -> str:
    """The time that the image says it was made at: the clamp where there is one, else now."""
    made_at = datetime.now(UTC) if clamp_mtime_s is None else datetime.fromtimestamp(clamp_mtime_s, UTC)
    return made_at.isoformat().replace("+00:00", "Z")
