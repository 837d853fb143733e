"""The table of ``crossdock proxy``'s options: the same names on the command line and in a TOML file.

Everything is text here; what it means, and whether it makes sense, ``proxy.settings`` knows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import ConfigError

Values = Mapping[str, tuple[str, ...]]
"""What was said for each option, by its name; absent = nothing was said."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``many`` = it may be given several times, in a file as a list."""

    name: str
    metavar: str
    help: str
    many: bool = False


OPTIONS: tuple[Option, ...] = (
    Option("listen", "HOST:PORT", "Where to listen; port 0 takes a free one. [127.0.0.1:5000]"),
    Option("store", "URL", "file:///path, s3://bucket/prefix or memory:. [the user's cache directory]"),
    Option(
        "upstream", "NAME=URL", "A registry to stand in front of, and settings for it alone. [docker.io]", many=True
    ),
    Option("default-upstream", "NAME", "The upstream of names that begin with none. [docker.io]"),
    Option("hosted", "PREFIX", "Repositories that live only here. [cache]", many=True),
    Option("first-writer", "PREFIX", "Hosted repositories where a tag never changes: the first counts.", many=True),
    Option("fall-through", "NARROW WIDE", "Hosted prefixes that read from a wider one what they lack.", many=True),
    Option("tag", "REGEXP=TIME", "How long tags that match are trusted; the first that matches counts.", many=True),
    Option("tag-ttl", "TIME", "How long other tags are trusted. [60s]"),
    Option("revalidate", "TIME", "How long a tag is served past that while the upstream is asked. [0s]"),
    Option("max-stale", "TIME", "How long a tag is served past that while the upstream fails. [1d]"),
    Option("negative-ttl", "TIME", "How long it is remembered that an upstream does not have something. [5s]"),
    Option("access-ttl", "TIME", "How long a permission to read is remembered. [60s]"),
    Option("disk-cache", "DIR", "Keep what is read from an s3:// store on this disk too."),
    Option("disk-cache-size", "BYTES", "How much of that disk to use, for example 50GB. [10GB]"),
    Option("redirect-network", "CIDR", "Clients there fetch large blobs from the bucket itself. [nobody]", many=True),
    Option("redirect-size", "BYTES", "From which size on they do. [1MB]"),
    Option("spool-dir", "DIR", "Where blobs grow that the store cannot take as files. [the system's]"),
    Option("host", "NAME", "A name that clients call this proxy by, beside its addresses.", many=True),
    Option("users", "FILE", "Local users: an htpasswd file with bcrypt hashes."),
    Option("tokens", "FILE", "Local users' static tokens: NAME:TOKEN lines."),
    Option("rule", "WHO PREFIX RIGHTS", "Who may read, write, delete, fetch where. [everybody everything]", many=True),
    Option("tls-cert", "FILE", "Serve HTTPS with this certificate chain (PEM), read anew when it changes."),
    Option("tls-key", "FILE", "The certificate's key (PEM)."),
    Option("replica-url", "URL", "Where the other replicas of a cluster reach this one. [this proxy is alone]"),
    Option("drain", "TIME", "How long to let transfers end once told to stop. [30s]"),
    Option("maintenance-interval", "TIME", "How often the store is looked after; 0 = never. [1h]"),
    Option("retain", "PREFIX LIMITS", "What is kept of cached content; without any nothing goes by itself.", many=True),
    Option("gc-grace", "TIME", "How long what nothing leads to stays: the longest that a push may take. [1d]"),
    Option("gc-rate", "NUMBER", "How often the store is asked a second for that; 0 = as fast as it goes. [500]"),
    Option("scrub-rate", "BYTES", "How much of it is read a second to find damage; 0 = nothing. [5MB]"),
    Option("log-format", "json|text", "How to log. [text on a terminal, else json]"),
    Option("log-level", "LEVEL", "What to log: debug, info, warning or error. [info]"),
)
UPSTREAM_SETTINGS: tuple[Option, ...] = (
    Option("url", "URL", "Its root: https://host or, for plain HTTP, http://host."),
    Option("mirror", "URL", "A registry with the same content, asked first.", many=True),
    *(option for option in OPTIONS if option.name in ("tag", "tag-ttl", "revalidate", "max-stale")),
    *(option for option in OPTIONS if option.name in ("negative-ttl", "access-ttl")),
    Option("account", "FILE", "A docker config.json with the proxy's own account, for reading."),
    Option("account-prefix", "PREFIX", "Repositories that are read with that account. [all]", many=True),
    Option("realm-host", "HOST", "A token server outside the registry's own domain.", many=True),
    Option("redirect-host", "HOST", "A host in a private network that it may redirect to.", many=True),
)
_BY_NAME = {option.name: option for option in OPTIONS}
_SETTINGS_BY_NAME = {option.name: option for option in UPSTREAM_SETTINGS}


def over(first: Values, second: Values) -> Values:
    """What ``first`` says, and what ``second`` says where that says nothing."""
    return {**second, **first}


def parse_toml(text: str) -> Values:
    """The options of a configuration file; their names with ``-`` or ``_``.

    ``upstream`` is a list as on the command line, or a table of tables: ``[upstream."ghcr.io"]`` with ``url`` and the
    other settings as keys. Raises ConfigError with every fault: TOML that cannot be read, unknown keys, wrong types.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"the file is not TOML: {error}"]) from error
    problems: list[str] = []
    values: dict[str, tuple[str, ...]] = {}
    for key, value in document.items():
        if key == "upstream" and isinstance(value, dict):
            values[key] = tuple(_upstream_text(name, table, problems) for name, table in value.items())
        elif (option := _known(key, _BY_NAME, "", problems)) is not None:
            values[option.name] = _texts(key, option, value, problems)
    if problems:
        raise ConfigError(problems)
    return values


def _upstream_text(name: str, table: object, problems: list[str]) -> str:
    """A table of an upstream's settings as the command line writes them."""
    where = f"upstream {name!r}: "
    if not isinstance(table, dict):
        problems.append(f"{where}expected a table with url and other settings")
        return ""
    said: dict[str, tuple[str, ...]] = {}
    for key, value in table.items():
        option = _known(key, _SETTINGS_BY_NAME, where, problems)
        if option is not None:
            said[option.name] = _texts(where + key, option, value, problems)
    url = said.pop("url", ("",))
    settings = [f"{key}={text}" for key, texts in said.items() for text in texts]
    return " ".join([f"{name}={''.join(url)}", *settings])


def _known(key: str, known: Mapping[str, Option], where: str, problems: list[str]) -> Option | None:
    option = known.get(key.replace("_", "-"))
    if option is None:
        problems.append(f"{where}unknown key {key!r}: expected one of {', '.join(known)}")
    return option


def _texts(key: str, option: Option, value: object, problems: list[str]) -> tuple[str, ...]:
    """The texts of one key; numbers are taken as their text."""
    items = value if option.many and isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        expected = f"a list of texts like {option.metavar}" if option.many else option.metavar
        problems.append(f"{key} is {value!r}: expected {expected}")
        return ()
    return tuple(map(str, items))
