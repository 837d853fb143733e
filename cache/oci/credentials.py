"""Who we are to a registry: docker's ``config.json`` and the credential helpers that it names.

Keys of ``auths`` are hosts, URLs of hosts, or ``host/path`` for a part of a registry; the longest that fits wins.
Docker Hub's key is ``https://index.docker.io/v1/``. Helpers speak docker's credential helper protocol.
"""

from __future__ import annotations

import base64
import binascii
import functools
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from cache.keys import KeyBuilder
from cache.oci.errors import InvalidCredentials
from cache.oci.reference import DOCKER_HUB, canonical_host

HUB_KEY = "https://index.docker.io/v1/"
HELPER_TIMEOUT_S = 60.0
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers and docker write in place of a user name, not a secret
_NOT_FOUND = "credentials not found"

T = TypeVar("T")


@dataclass(frozen=True)
class Credential:
    """What to show a registry; the secrets stay out of ``repr``. All empty: anonymous."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @functools.cached_property  # asked for several times in every request
    def fingerprint(self) -> str:
        """A name for this identity in the keys of caches. Derived from the secret: never for logs."""
        key = KeyBuilder("credential").text("username", self.username).text("password", self.password)
        return key.text("identity-token", self.identity_token).key().hex[:32]


ANONYMOUS = Credential()


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry] = {}
    creds_store: str = msgspec.field(default="", name="credsStore")
    cred_helpers: dict[str, str] = msgspec.field(default={}, name="credHelpers")


class _HelperReply(msgspec.Struct, frozen=True):
    username: str = msgspec.field(default="", name="Username")
    secret: str = msgspec.field(default="", name="Secret")


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The credentials in a ``config.json``. ``environ`` is what its helpers are started with, once per host.

    ``otherwise`` is asked, by host and repository, where it has nothing for a registry.
    """

    where: str = "config.json"
    auths: Mapping[str, Credential] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    otherwise: Callable[[str, str], Credential] | None = field(default=None, repr=False)
    _answers: dict[str, Credential] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(
        cls, environ: Mapping[str, str], home: Path, otherwise: Callable[[str, str], Credential] | None = None
    ) -> DockerConfig:
        """What ``$DOCKER_AUTH_CONFIG`` says, and for other registries the first file there is.

        That is ``$DOCKER_CONFIG/config.json`` or else ``~/.docker/config.json``, then podman's:
        ``$REGISTRY_AUTH_FILE``, ``$XDG_RUNTIME_DIR/containers/auth.json``. Empty when there is none of them. Raises
        InvalidCredentials when one cannot be read or is not what docker writes.
        """
        config = replace(cls._load_file(environ, home), otherwise=otherwise)
        if not (given := environ.get("DOCKER_AUTH_CONFIG")):
            return config
        return replace(cls.parse(given.encode(), "DOCKER_AUTH_CONFIG", environ), otherwise=config.credential_for)

    @classmethod
    def _load_file(cls, environ: Mapping[str, str], home: Path) -> DockerConfig:
        folder, podman_s = environ.get("DOCKER_CONFIG"), environ.get("REGISTRY_AUTH_FILE")
        paths = [(Path(folder) if folder else home / ".docker") / "config.json"]
        paths += [Path(podman_s)] if podman_s else []
        paths += [Path(runtime) / "containers/auth.json"] if (runtime := environ.get("XDG_RUNTIME_DIR")) else []
        for path in paths:
            try:
                return cls.parse(path.read_bytes(), path, environ)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InvalidCredentials(f"{path} cannot be read: {error.strerror}") from error
        return cls(environ=environ)

    @classmethod
    def parse(
        cls, data: bytes, where: object = "config.json", environ: Mapping[str, str] | None = None
    ) -> DockerConfig:
        """The configuration in ``data``, which comes from ``where``. Raises InvalidCredentials."""
        try:
            read = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidCredentials(f"{where} is not a docker config.json: {error}") from error
        auths = {key: _credential(entry, key, where) for key, entry in read.auths.items()}
        return cls(str(where), auths, read.creds_store, read.cred_helpers, environ or {})

    def credential_for(self, host: str, repository: str = "") -> Credential:
        """What to show ``host`` for ``repository``; ANONYMOUS when nothing is configured for it.

        May start a credential helper and then blocks until it ends. Raises InvalidCredentials when the helper is
        missing or fails.
        """
        host = canonical_host(host)
        found = self._own_credential_for(host, repository)
        return self.otherwise(host, repository) if found == ANONYMOUS and self.otherwise is not None else found

    def _own_credential_for(self, host: str, repository: str) -> Credential:
        helper = _best(self.helpers, host, "")
        if helper:
            return self._asked(helper, host)
        found = _best(self.auths, host, repository)
        if found is not None and found != ANONYMOUS:
            return found
        return self._asked(self.store, host) if self.store else ANONYMOUS

    def _asked(self, helper: str, host: str) -> Credential:
        if host not in self._answers:
            self._answers[host] = self._ask(helper, host)
        return self._answers[host]

    def _ask(self, helper: str, host: str) -> Credential:
        name = f"docker-credential-{helper}"
        program = shutil.which(name, path=self.environ.get("PATH")) if "/" not in helper else None
        if program is None:
            raise InvalidCredentials(
                f"{self.where} names the credential helper {name} for {host}, but it is not in PATH"
            )
        server = HUB_KEY if host == DOCKER_HUB else host
        try:
            ended = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                env=dict(self.environ),
                timeout=HELPER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InvalidCredentials(
                f"the credential helper {name} failed for {host}: {type(error).__name__}"
            ) from error
        return _helper_reply(name, host, ended)


def _helper_reply(name: str, host: str, ended: subprocess.CompletedProcess[bytes]) -> Credential:
    said = ended.stdout.decode(errors="replace").strip()
    if ended.returncode:
        if said.startswith(_NOT_FOUND):
            return ANONYMOUS
        said = (said or ended.stderr.decode(errors="replace").strip())[:200]
        raise InvalidCredentials(f"the credential helper {name} failed for {host}: {said or ended.returncode}")
    try:
        reply = msgspec.json.decode(ended.stdout, type=_HelperReply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidCredentials(f"the credential helper {name} gave no JSON that fits for {host}") from error
    if reply.username == _TOKEN_USER:
        return Credential(identity_token=reply.secret)
    return Credential(reply.username, reply.secret)


def _credential(entry: _Entry, key: str, where: object) -> Credential:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            decoded = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidCredentials(f"{where}: the auth of {key} is not base64 text") from error
        username, colon, password = decoded.partition(":")
        if not colon:
            raise InvalidCredentials(f"{where}: the auth of {key} is not user:password in base64")
        password = password.strip("\x00")
    return Credential(username, password, entry.identitytoken)


def _best(entries: Mapping[str, T], host: str, repository: str) -> T | None:
    """The entry whose key covers most of ``host/repository``."""
    fitting = [
        (len(path), entry) for key, entry in entries.items() if (path := _covers(key, host, repository)) is not None
    ]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def _covers(key: str, host: str, repository: str) -> str | None:
    """The path of a key that covers the repository ("" = the whole host); None when it does not."""
    named, _, path = key.partition("://")[2 if "://" in key else 0].partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""
    if canonical_host(named) != host:
        return None
    return path if not path or f"{repository}/".startswith(f"{path}/") else None
