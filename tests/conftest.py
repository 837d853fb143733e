"""Registers the fixture plug-ins of all tests; a module comes after those that it imports."""

from __future__ import annotations

import gc

pytest_plugins = [
    "tests.peers",
    "tests.fakes.tokens",
    "tests.debian",
    "tests.docker",
    "tests.proxy.clients",
    "tests.builder.roots",
    "tests.integration.building",
]


def pytest_collection_finish() -> None:
    """Takes the thousands of collected tests out of every later search for garbage."""
    gc.collect()
    gc.freeze()
