"""What instructions make of an image's configuration: ImageConfig → ImageConfig, words expanded already.

The results are BuildKit's, with two differences, both as buildah has it: CMD does not set ``ArgsEscaped``, which is
deprecated and means something on Windows only, and an image from scratch has no WorkingDir before a WORKDIR.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterable, Sequence

import msgspec

from builder.dockerfile.instructions import Command, ExecForm
from cache.oci.config import Healthcheck, History, ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
HISTORY_COMMENT = "buildkit.dockerfile.v0"

_PORT = re.compile(r"[0-9]{1,5}\Z")
_HOST = re.compile(r"[0-9a-fA-F.:\[\]-]*\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


def stage_config(base: ImageConfig) -> ImageConfig:
    """The configuration that a stage on ``base`` starts with.

    PATH is set where the base sets none, scratch included, as BuildKit and buildah do. The base's ONBUILD triggers go:
    they were for this build.
    """
    config = _changed(base, on_build=None)
    return config if "PATH" in environment(base) else with_env(config, [("PATH", DEFAULT_PATH)])


def environment(config: ImageConfig) -> dict[str, str]:
    """ENV as a mapping, in order; of a name that stands twice the last value."""
    pairs = (entry.partition("=") for entry in config.config.env or ())
    return {name: value for name, _, value in pairs}


def with_env(config: ImageConfig, pairs: Iterable[tuple[str, str]]) -> ImageConfig:
    """ENV: a name that is there keeps its place."""
    env = list(config.config.env or ())
    for name, value in pairs:
        entry = f"{name}={value}"
        for index, old in enumerate(env):
            if old.partition("=")[0] == name:
                env[index] = entry
                break
        else:
            env.append(entry)
    return _changed(config, env=tuple(env))


def with_labels(config: ImageConfig, pairs: Iterable[tuple[str, str]]) -> ImageConfig:
    """LABEL."""
    return _changed(config, labels={**(config.config.labels or {}), **dict(pairs)})


def with_ports(config: ImageConfig, ports: Iterable[str]) -> ImageConfig:
    """EXPOSE of ``80/tcp`` and the like, see :func:`parse_ports`."""
    names = {*(config.config.exposed_ports or {}), *ports}
    return _changed(config, exposed_ports={name: {} for name in sorted(names)})


def parse_ports(specs: Iterable[str]) -> tuple[str, ...]:
    """The ports in words of EXPOSE as ``number/protocol``: ``80``, ``80/udp``, ``7000-7002``.

    A host port or address before it (``8080:80``) has no meaning in an image and is passed over, as in BuildKit.
    Raises ValueError.
    """
    ports: list[str] = []
    for spec in specs:
        host, _, port = spec.rpartition(":")
        if not _HOST.match(host):
            raise ValueError(f"invalid host address or port in {spec!r}")
        numbers, _, protocol = port.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in _PROTOCOLS:
            raise ValueError(f"unknown protocol in port {spec!r}: expected {', '.join(_PROTOCOLS)}")
        first, dash, last = numbers.partition("-")
        low, high = _port(first, spec), _port(last if dash else first, spec)
        if high < low:
            raise ValueError(f"port range {spec!r} ends before it begins")
        ports.extend(f"{number}/{protocol}" for number in range(low, high + 1))
    return tuple(ports)


def _port(text: str, spec: str) -> int:
    if not _PORT.match(text) or int(text) > 65535:
        raise ValueError(f"invalid port {spec!r}: expected a number up to 65535 or a range such as 7000-7002")
    return int(text)


def with_volumes(config: ImageConfig, paths: Iterable[str]) -> ImageConfig:
    """VOLUME. Raises ValueError for an empty path."""
    names = {*(config.config.volumes or {}), *paths}
    if "" in names:
        raise ValueError("a volume's path is empty")
    return _changed(config, volumes={name: {} for name in sorted(names)})


def with_user(config: ImageConfig, user: str) -> ImageConfig:
    """USER."""
    return _changed(config, user=user)


def with_workdir(config: ImageConfig, path: str) -> ImageConfig:
    """WORKDIR; a relative path goes on from the one before."""
    return _changed(config, working_dir=join_path(config.config.working_dir, path))


def join_path(workdir: str, path: str) -> str:
    """``path`` in the image, absolute and without dots, as seen from ``workdir`` (``/`` when empty)."""
    joined = posixpath.join("/", workdir, path)
    return posixpath.normpath("/" + joined.lstrip("/"))


def shell_argv(config: ImageConfig, command: Command) -> tuple[str, ...]:
    """The program and arguments of a command; a shell form goes to the image's SHELL, else to ``/bin/sh -c``."""
    if isinstance(command, ExecForm):
        return command.argv
    return (*(config.config.shell or DEFAULT_SHELL), command.text)


def with_cmd(config: ImageConfig, command: Command) -> ImageConfig:
    """CMD."""
    return _changed(config, cmd=shell_argv(config, command))


def with_entrypoint(config: ImageConfig, command: Command, *, cmd_set: bool) -> ImageConfig:
    """ENTRYPOINT; a CMD that is only inherited (not ``cmd_set`` in the same stage) goes, it was for another program."""
    argv = shell_argv(config, command)
    return _changed(config, entrypoint=argv or None, **({} if cmd_set else {"cmd": None}))


def with_shell(config: ImageConfig, argv: Sequence[str]) -> ImageConfig:
    """SHELL."""
    return _changed(config, shell=tuple(argv))


def with_stop_signal(config: ImageConfig, name: str) -> ImageConfig:
    """STOPSIGNAL, kept as written. Raises ValueError for what is neither a signal's name nor a number over 0."""
    if not _is_signal(name):
        raise ValueError(f"unknown signal {name!r}")
    return _changed(config, stop_signal=name)


def _is_signal(name: str) -> bool:
    if name.isascii() and name.isdigit():
        return int(name) > 0
    known = name.upper().removeprefix("SIG")
    if re.fullmatch(r"RTM(IN(\+([1-9]|1[0-5]))?|AX(-([1-9]|1[0-4]))?)", known):
        return True
    return f"SIG{known}" in signal.Signals.__members__


def with_health_check(config: ImageConfig, check: Healthcheck) -> ImageConfig:
    """HEALTHCHECK: one that the base has goes as a whole."""
    return _changed(config, healthcheck=check)


def with_trigger(config: ImageConfig, trigger: str) -> ImageConfig:
    """ONBUILD."""
    return _changed(config, on_build=(*(config.config.on_build or ()), trigger))


def with_author(config: ImageConfig, author: str) -> ImageConfig:
    """MAINTAINER."""
    return msgspec.structs.replace(config, author=author)


def history_entry(created_by: str, created: str, *, empty_layer: bool) -> History:
    """One step of the image's history; ``created`` is RFC 3339, see ``builder.planning.history`` for ``created_by``."""
    return History(created=created, created_by=created_by, comment=HISTORY_COMMENT, empty_layer=empty_layer)


def with_history(config: ImageConfig, entry: History) -> ImageConfig:
    """``config`` with one more step in its history."""
    return msgspec.structs.replace(config, history=(*config.history, entry))


def _changed(config: ImageConfig, **fields: object) -> ImageConfig:
    return msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, **fields))
