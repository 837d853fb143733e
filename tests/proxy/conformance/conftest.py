"""One registry for the whole suite, and a new proxy for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.peers import Registry, start_registry
from tests.proxy.conformance.targets import TARGETS, Target, running_target


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    foreign = {"validation": {"manifests": {"urls": {"allow": ["^https://layers[.]invalid/"]}}}}
    with start_registry(tmp_path_factory.mktemp("conformance"), extra=foreign) as started:
        yield started


@pytest.fixture(params=TARGETS)
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    registry = request.getfixturevalue("shared_registry") if request.param == "docker-registry" else None
    async with running_target(request.param, tmp_path, registry) as running:
        yield running
