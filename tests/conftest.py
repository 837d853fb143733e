"""Registers the fixture plug-ins of all tests; a module comes after those that it imports."""

pytest_plugins = [
    "tests.peers",
    "tests.fakes.tokens",
    "tests.debian",
    "tests.docker",
    "tests.proxy.clients",
    "tests.builder.roots",
    "tests.integration.building",
]
