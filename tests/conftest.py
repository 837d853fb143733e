"""What all tests share: the fixture plug-ins (a module after those that it imports), and how properties are tried.

Each run tries the same examples, however long one takes: what fails here fails everywhere.
"""

from __future__ import annotations

import gc

from hypothesis import settings

pytest_plugins = [
    "tests.peers",
    "tests.fakes.tokens",
    "tests.debian",
    "tests.docker",
    "tests.proxy.clients",
    "tests.builder.roots",
    "tests.integration.building",
]

settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Takes the thousands of collected tests out of every later search for garbage."""
    gc.collect()
    gc.freeze()
