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
        builder: errors events options
        builder.contexts: locations remote
        builder.dockerfile: instructions
        builder.layer: changes
        builder.outputs: exports
        builder.sandbox: records run_mounts
        cache: errors flags priority store tls
        cache.oci: codec config descriptor digest errors gate layer manifest media_types mirrors observer profile
            reference registry_options
        cache.s3: location
        proxy: errors
        proxy.auth: rights
        proxy.requests: outcome
    """,
    1: """
        builder: findings flag_page flags kaniko_environment warm_flags
        builder.contexts: cloud_storage ignore members
        builder.dockerfile: closest config_syntax directives durations expansion glob heredocs lines mounts parser
            statement words work_syntax
        builder.execution: chmod copy_rules image_users
        builder.layer: links merge tarformat
        builder.outputs: export_syntax image
        builder.planning: checks dry_run evaluate evaluate_work explain graph history keys lint lint_steps metadata
            named_images plan sources stage_scope steps
        cache: bulk command_line entry keys paths ranges record_format record_names registry_flags
            singleflight together units verify
        cache.disk: eviction
        cache.oci: challenge http_proxy networks reach redirect referrers replies retry sending
        cache.s3: answers capabilities part_sizes patience
        cache.upkeep: digests entry_table gc_report marks retention
        proxy: config options reload settings summary
        proxy.auth: admission hosts
        proxy.cluster: replica_key
        proxy.hosting: fall_through
        proxy.observe: audit client_config secret_text status_page
        proxy.requests: negotiation ranges replies request routing
        proxy.upstream: circuit freshness quota
    """,
    2: """
        builder: kept oci_layout stored_images workspace
        builder.contexts: archive_streams context download fetching file_digests git_program
        builder.execution: copy digests placement
        builder.layer: archives chunk_stream decompress entries layerdir rewrite rootfs snapshot storing tarlayer
            tarread unpack unpacked
        builder.outputs: digest_files files image_files web whole_files
        builder.sandbox: agent_socket cache_mounts foreign ids isolation mount_preparation mounts program root rootless
            stubs user_namespace
        cache: memory record_memory
        cache.disk: blob_files durable filesystem growing quarantine_files record_files tier
        cache.oci: ambient auth client connections credential_file credentials discovery download google_credentials
            peers registries session tls transport uploads
        cache.s3: bucket deleting part_intake probe quarantine reading records session store sweep wire writing
        cache.upkeep: pace paced_store
        proxy: certificate check
        proxy.auth: accounts caller identity users
        proxy.cluster: replicas
        proxy.observe: log metrics
        proxy.transfer: sightings spool spool_file
        proxy.upstream: gates upstreams
    """,
    3: """
        builder: bases
        builder.contexts: local_inputs remotes
        builder.execution: execute finishing mounting perform stage_root step_cache unpacking workshop
        builder.layer: origins
        builder.outputs: conversions deliver push
        builder.sandbox: run
        cache: catalog layers leases stores warm
        cache.disk: copying tiered
        cache.upkeep: collect condemned expiry inventory listing manifest_facts marking places reap rounds scrub
            scrub_turns survey sweep usage usage_table usage_totals uses walking
        proxy: drain maintenance services
        proxy.auth: access authenticate
        proxy.cluster: fills
        proxy.hosting: hosted lookup
        proxy.observe: status
        proxy.transfer: blobs fills forwarded intake manifest_pushes mounts redirects sender uploads
        proxy.upstream: absences asking held manifests referrers refetch sources stale tags
    """,
    4: """
        builder: build cli cli_outputs cli_sources progress push_cli warm_cli
        cache: login_cli logout_cli
        cache.upkeep: cli commands gc_command verify_command
        proxy: app cli
        proxy.cluster: gate passing
        proxy.requests: call discovery handlers middleware pulling pushing serving
    """,
}


def level_of_each() -> dict[str, int]:
    """``LEVELS`` by the modules' dotted names."""
    found: dict[str, int] = {}
    for level, table in LEVELS.items():
        package = ""
        for word in table.split():
            if word.endswith(":"):
                package = word.removesuffix(":")
            else:
                found[f"{package}.{word}"] = level
    return found


LEVEL_OF = level_of_each()
OUTSIDE = {"aiohttp", "boto3", "fcntl", "os", "random", "secrets", "shutil", "socket", "subprocess", "tempfile", "time"}
"""Files, network, clock, chance and other programs."""
READS_THE_ENVIRONMENT = {"builder.sandbox.program"}  # a program of its own, started as a child
SANDBOX = {f"builder.sandbox.{name}" for name in ("ids", "mounts", "program", "records", "root", "user_namespace")}
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
        ("crossdock", {"aiohttp", "boto3", "click", "builder.cli", "proxy.cli", "builder.warm_cli"}),
        ("builder.cli", {"boto3", "botocore", "rich", "aiohttp.web", "proxy"}),
        ("proxy.cli", {"boto3", "botocore", "builder"}),
        ("cache.upkeep.cli", {"boto3", "botocore", "aiohttp", "builder", "proxy"}),
        ("builder.warm_cli", {"boto3", "botocore", "rich", "aiohttp.web", "proxy"}),
    ],
)
def test_start_up_imports_nothing_that_it_may_not_need(module: str, absent: set[str]):
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not absent & set(loaded.stdout.split())
