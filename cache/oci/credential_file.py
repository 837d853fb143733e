"""Adds and removes credentials in docker's ``config.json``, or in the credential helper that it names for a registry.

Everything else in the file stays as it is. Only its owner can read what is written.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.oci.credentials import HELPER_TIMEOUT_S, HUB_KEY, Credential
from cache.oci.errors import InvalidCredentials
from cache.oci.reference import DOCKER_HUB, canonical_host


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """The ``config.json`` at ``path``; ``environ`` is what helpers are started with. All methods block."""

    path: Path
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def find(cls, environ: Mapping[str, str], home: Path) -> CredentialFile:
        """``$DOCKER_CONFIG/config.json``, else ``~/.docker/config.json``; it need not exist."""
        folder = environ.get("DOCKER_CONFIG")
        return cls((Path(folder) if folder else home / ".docker") / "config.json", environ)

    def store(self, host: str, credential: Credential) -> str:
        """Keeps the user name and password for a registry, and says where. Raises InvalidCredentials."""
        config = self._read()
        if helper := _helper(config, host):
            secret = {"ServerURL": _key(host), "Username": credential.username, "Secret": credential.password}
            self._ask(helper, "store", json.dumps(secret))
            return f"the credential helper {helper}"
        pair = f"{credential.username}:{credential.password}".encode()
        config.setdefault("auths", {})[_key(host)] = {"auth": base64.b64encode(pair).decode()}
        self._write(config)
        return str(self.path)

    def erase(self, host: str) -> bool:
        """Forgets what is kept for a registry; False when there was nothing. Raises InvalidCredentials."""
        config = self._read()
        auths = config.get("auths", {})
        named = [key for key in auths if _host_of(key) == canonical_host(host)]
        for key in named:
            del auths[key]
        if named:
            self._write(config)
        if helper := _helper(config, host):
            self._ask(helper, "erase", _key(host))
        return bool(named or helper)

    def _read(self) -> dict[str, Any]:
        try:
            config = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InvalidCredentials(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InvalidCredentials(f"{self.path} is not JSON") from error
        if not isinstance(config, dict) or not isinstance(config.get("auths", {}), dict):
            raise InvalidCredentials(f"{self.path} is not a docker config.json")
        return config

    def _write(self, config: Mapping[str, Any]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = self.path.resolve()  # where it is a link, what it leads to is replaced
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=".config.")
            try:
                with open(handle, "w") as out:  # mkstemp's mode is 0600
                    json.dump(config, out, indent="\t")
                os.replace(name, target)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                raise
        except OSError as error:
            raise InvalidCredentials(f"{self.path} cannot be written: {error.strerror}") from error

    def _ask(self, helper: str, verb: str, text: str) -> None:
        name = f"docker-credential-{helper}"
        program = shutil.which(name, path=self.environ.get("PATH")) if "/" not in helper else None
        if program is None:
            raise InvalidCredentials(f"{self.path} names the credential helper {name}, but it is not in PATH")
        try:
            ended = subprocess.run(
                [program, verb],
                input=text.encode(),
                capture_output=True,
                env=dict(self.environ),
                timeout=HELPER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InvalidCredentials(f"the credential helper {name} failed: {type(error).__name__}") from error
        if ended.returncode:  # what it says may repeat what it was given
            raise InvalidCredentials(f"the credential helper {name} could not {verb}: status {ended.returncode}")


def _helper(config: Mapping[str, Any], host: str) -> str:
    """The helper for a registry, "" for none."""
    helpers = config.get("credHelpers", {})
    named = {_host_of(key): value for key, value in helpers.items()} if isinstance(helpers, dict) else {}
    return str(named.get(canonical_host(host)) or config.get("credsStore") or "")


def _key(host: str) -> str:
    return HUB_KEY if canonical_host(host) == DOCKER_HUB else canonical_host(host)


def _host_of(key: str) -> str:
    return canonical_host(key.partition("://")[2 if "://" in key else 0].partition("/")[0])
