"""What can be known to be wrong with a configuration before it is put in force: the files that it names."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.auth.accounts import account_problems
from proxy.auth.users import Users
from proxy.certificate import Certificate
from proxy.config import ProxyConfig
from proxy.errors import ConfigError


def file_problems(config: ProxyConfig) -> list[str]:
    """What is wrong with the files and directories that the configuration names; opens nothing for good."""
    problems = account_problems(config.upstreams.values())
    try:
        Users.load(config.users_file, config.tokens_file)
    except ConfigError as error:
        problems += error.problems
    try:
        if config.tls is not None:
            Certificate(config.tls)
    except ConfigError as error:
        problems += error.problems
    if config.spool_dir is not None and not _writable(config.spool_dir):
        problems.append(f"spool-dir: {config.spool_dir} is no directory that can be written")
    return problems


def _writable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
