"""The shape of the program, as a test: which package and which level may import which, and how long things may get.

Levels: 0 values and errors, 1 pure logic, 2 adapters (one outside thing each), 3 services, 4 entry points.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cache", "proxy", "builder")
MAY_IMPORT = {"cache": {"cache"}, "proxy": {"proxy", "cache"}, "builder": {"builder", "cache"}}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

LEVELS = {
    0: """
        cache.errors cache.s3.location cache.store
        cache.oci.codec cache.oci.config cache.oci.descriptor cache.oci.digest cache.oci.errors cache.oci.layer
        cache.oci.manifest cache.oci.media_types cache.oci.mirrors cache.oci.observer cache.oci.profile
        cache.oci.reference
        proxy.errors proxy.requests.outcome proxy.auth.rights
        cache.oci.gate cache.priority
        builder.layer.changes builder.dockerfile.instructions builder.errors builder.events builder.outputs.exports
        builder.flags builder.contexts.locations builder.options builder.contexts.remote builder.sandbox.records builder.sandbox.run_mounts
    """,
    1: """
        cache.dockerfile_images cache.entry cache.disk.eviction cache.keys cache.upkeep.marks cache.paths cache.ranges
        cache.record_format cache.record_names cache.upkeep.retention cache.s3.answers cache.s3.capabilities
        cache.s3.part_sizes cache.s3.patience cache.singleflight cache.together cache.units cache.verify
        cache.upkeep.gc_report
        cache.oci.challenge cache.oci.networks cache.oci.reach cache.oci.redirect cache.oci.referrers cache.oci.replies
        cache.oci.retry cache.oci.sending
        proxy.auth.admission proxy.observe.audit proxy.upstream.circuit proxy.observe.client_config proxy.config proxy.hosting.fall_through proxy.upstream.freshness
        proxy.auth.hosts
        proxy.requests.negotiation proxy.options proxy.upstream.quota proxy.requests.ranges proxy.reload proxy.cluster.replica_key proxy.requests.replies
        proxy.requests.request proxy.requests.routing
        proxy.observe.secret_text proxy.settings proxy.observe.status_page proxy.summary
        builder.execution.chmod builder.contexts.cloud_storage builder.contexts.members builder.execution.copy_rules
        builder.dockerfile.config_syntax builder.dockerfile.directives
        builder.dockerfile.durations builder.dockerfile.expansion builder.dockerfile.glob builder.dockerfile.heredocs
        builder.dockerfile.lines builder.dockerfile.mounts builder.dockerfile.parser builder.dockerfile.statement
        builder.dockerfile.words builder.dockerfile.work_syntax builder.planning.dry_run builder.planning.evaluate builder.planning.evaluate_work
        builder.planning.explain builder.outputs.export_syntax builder.planning.graph
        builder.planning.history builder.contexts.ignore builder.outputs.image builder.execution.image_users builder.planning.keys builder.layer.links builder.planning.lint
        builder.planning.metadata builder.planning.plan builder.planning.sources builder.planning.stage_scope builder.planning.steps
        builder.layer.tarformat
    """,
    2: """
        cache.disk.blob_files cache.disk.tier cache.disk.durable cache.disk.filesystem cache.disk.growing cache.memory
        cache.upkeep.pace cache.s3.part_intake cache.disk.quarantine_files cache.disk.record_files cache.record_memory
        cache.s3.store cache.s3.bucket cache.s3.probe cache.s3.quarantine cache.s3.reading cache.s3.records cache.s3.session
        cache.s3.sweep cache.s3.wire cache.s3.writing
        cache.oci.auth cache.oci.client cache.oci.credentials cache.oci.download cache.oci.registries cache.oci.session
        cache.oci.transport cache.oci.uploads
        builder.stored_images cache.oci.credential_file
        cache.oci.connections cache.oci.discovery proxy.auth.accounts proxy.auth.caller proxy.certificate proxy.check
        proxy.auth.identity proxy.observe.log proxy.observe.metrics proxy.cluster.replicas proxy.transfer.sightings proxy.transfer.spool proxy.transfer.spool_file
        proxy.upstream.upstreams proxy.auth.users proxy.upstream.gates
        builder.sandbox.agent_socket builder.contexts.archive_streams builder.layer.archives builder.sandbox.cache_mounts builder.contexts.context builder.execution.copy
        builder.layer.decompress
        builder.outputs.digest_files builder.execution.digests builder.contexts.download builder.layer.entries builder.outputs.files builder.sandbox.foreign
        builder.contexts.git_program builder.contexts.google_credentials builder.sandbox.isolation builder.layer.layerdir
        builder.sandbox.mount_preparation builder.oci_layout builder.outputs.image_files builder.execution.placement builder.layer.rootfs builder.sandbox.program
        builder.sandbox.mounts builder.sandbox.root builder.layer.snapshot builder.sandbox.stubs builder.layer.tarlayer builder.layer.tarread
        builder.layer.unpack builder.layer.unpacked builder.workspace
    """,
    3: """
        cache.catalog cache.disk.copying cache.upkeep.inventory cache.layers cache.leases cache.upkeep.listing cache.upkeep.reap cache.upkeep.rounds
        cache.upkeep.scrub cache.upkeep.scrub_turns cache.stores cache.disk.tiered cache.upkeep.walking cache.warm proxy.upstream.absences proxy.auth.access
        proxy.auth.authenticate proxy.transfer.blobs proxy.cluster.fills proxy.drain proxy.transfer.fills proxy.transfer.forwarded proxy.upstream.held
        proxy.hosting.hosted proxy.transfer.intake proxy.hosting.lookup proxy.maintenance proxy.transfer.manifest_pushes proxy.upstream.manifests proxy.transfer.mounts
        proxy.transfer.redirects proxy.upstream.referrers proxy.upstream.refetch
        proxy.upstream.asking proxy.transfer.sender proxy.services proxy.upstream.sources proxy.upstream.stale proxy.observe.status proxy.upstream.tags proxy.transfer.uploads
        builder.bases builder.outputs.conversions builder.outputs.deliver
        builder.execution.execute builder.layer.origins builder.contexts.local_inputs builder.execution.mounting builder.execution.perform
        builder.outputs.push builder.contexts.remotes
        builder.sandbox.run builder.execution.stage_root builder.execution.step_cache
        cache.upkeep.collect cache.upkeep.condemned cache.upkeep.entries cache.upkeep.expiry cache.upkeep.manifest_facts cache.upkeep.marking cache.upkeep.shards
        cache.upkeep.sweep cache.upkeep.usage cache.upkeep.usage_totals cache.upkeep.uses
    """,
    4: """
        cache.cli cache.login_cli cache.logout_cli cache.upkeep.cli cache.upkeep.commands cache.upkeep.verify_command
        cache.upkeep.gc_command
        proxy.cluster.gate proxy.cluster.passing
        proxy.app proxy.requests.call proxy.cli proxy.requests.discovery proxy.requests.handlers proxy.requests.middleware proxy.requests.pulling proxy.requests.pushing
        proxy.requests.serving
        builder.build builder.cli builder.cli_outputs builder.cli_sources builder.push_cli builder.progress
    """,
}
LEVEL_OF = {module: level for level, modules in LEVELS.items() for module in modules.split()}
OUTSIDE = {"aiohttp", "boto3", "fcntl", "os", "random", "secrets", "shutil", "socket", "subprocess", "tempfile", "time"}
"""Files, network, clock, chance and other programs."""
READS_THE_ENVIRONMENT = {"builder.sandbox.program"}  # a program of its own, started as a child
SANDBOX = {"builder.sandbox.records", "builder.sandbox.program", "builder.sandbox.mounts", "builder.sandbox.root"}
"""All that it is made of."""


class Import(NamedTuple):
    """One import of our own code: ``late`` inside a function, ``typing`` under ``if TYPE_CHECKING``."""

    importer: str
    imported: str
    line: int
    late: bool
    typing: bool


def sources() -> dict[str, Path]:
    """Every module of the three packages by its dotted name; packages go by their own name."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()
TREES = {module: ast.parse(path.read_text(), str(path)) for module, path in SOURCES.items()}
MODULES = {module for module, path in SOURCES.items() if path.name != "__init__.py"}


def imports_of(module: str) -> Iterator[Import]:
    """The imports of our own modules in one file."""
    yield from _imports(module, TREES[module], late=False, typing=False)


def _imports(module: str, node: ast.AST, *, late: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in _imported(child):
                yield Import(module, name, child.lineno, late, typing)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from _imports(module, child, late=late or inside, typing=typing or guarded)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules that a statement imports: ``from package import module`` names the module."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert node.level == 0, f"relative import on line {node.lineno}"
        base = node.module or ""
        names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in SOURCES else base for alias in node.names]
    yield from (name for name in names if name.split(".")[0] in PACKAGES or name == "crossdock")


def all_imports(module: str) -> Iterator[str]:
    """Everything that a file imports, ours or not."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


IMPORTS = [found for module in SOURCES for found in imports_of(module)]


def test_every_module_has_a_level():
    assert set(LEVEL_OF) == MODULES


def test_packages_import_in_one_direction():
    assert not [
        found for found in IMPORTS if found.imported.split(".")[0] not in MAY_IMPORT[found.importer.split(".")[0]]
    ]


def test_no_module_imports_a_higher_level():
    level = LEVEL_OF | {module: 0 for module in SOURCES if module not in MODULES}
    assert not [found for found in IMPORTS if not found.typing and level[found.importer] < level.get(found.imported, 4)]


@pytest.mark.parametrize("module", [module for module, level in LEVEL_OF.items() if level < 2])
def test_values_and_logic_reach_nothing_outside(module: str):
    tops = {name.split(".")[0] for name in all_imports(module)}
    assert not tops & OUTSIDE


def test_imports_have_no_cycle():
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in IMPORTS:
        if not (found.late or found.typing):
            graph[found.importer].add(found.imported)
    graphlib.TopologicalSorter(graph).prepare()


def test_package_files_import_nothing():
    """``import cache`` alone must cost nothing, and a re-export would hide where a name lives."""
    assert not [found for found in IMPORTS if found.importer not in MODULES]


@pytest.mark.parametrize("module", [*SOURCES, "crossdock"])
def test_files_and_functions_are_short(module: str):
    text = (SOURCES.get(module) or ROOT / "crossdock.py").read_text()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions)
    }
    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert not {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}


def test_only_entry_points_read_the_environment():
    readers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb", "os.getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names} & {"environ"})
    }
    assert not {module for module in readers - READS_THE_ENVIRONMENT if LEVEL_OF.get(module, 0) < 4}


def test_the_sandbox_child_imports_only_the_standard_library_and_itself():
    for module in SANDBOX:
        tops = {name.split(".")[0] for name in all_imports(module)}
        assert tops <= sys.stdlib_module_names | {"builder"}
    assert {found.imported for found in IMPORTS if found.importer in SANDBOX} - {"builder"} <= SANDBOX


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("crossdock", {"aiohttp", "boto3", "click", "builder.cli", "proxy.cli", "cache.cli"}),
        ("builder.cli", {"boto3", "botocore", "rich", "aiohttp.web", "proxy"}),
        ("proxy.cli", {"boto3", "botocore", "builder"}),
        ("cache.upkeep.cli", {"boto3", "botocore", "aiohttp", "builder", "proxy"}),
        ("cache.cli", {"boto3", "botocore", "rich", "aiohttp.web", "builder", "proxy"}),
    ],
)
def test_start_up_imports_nothing_that_it_may_not_need(module: str, absent: set[str]):
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not absent & set(loaded.stdout.split())
