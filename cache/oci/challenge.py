"""``WWW-Authenticate`` of registries (RFC 9110, section 11.6.1; distribution's token specification): what is asked for.

Pure text: knows nothing of credentials, requests or time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf"({_NAME})[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|({_NAME}))")
_SCHEME = re.compile(rf"({_NAME})(?=[ \t,]|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_SEPARATOR = re.compile(r"[ \t,]*")
_QUOTED_PAIR = re.compile(r"\\(.)")


class Challenge(msgspec.Struct, frozen=True):
    """One way in that the registry offers. ``scheme`` and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def realm(self) -> str:
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges in the headers' values, in order; what cannot be read ends its header."""
    return tuple(challenge for header in headers for challenge in _parse(header))


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = _skip(header, 0)
    while match := _SCHEME.match(header, position):
        parameters: dict[str, str] = {}
        position = _skip(header, match.end())
        # One opaque value instead of parameters (Negotiate); never one that begins the next challenge.
        if (opaque := _TOKEN68.match(header, position)) and header[match.end() : position].strip(" \t") == "":
            position = _skip(header, opaque.end())
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = _QUOTED_PAIR.sub(r"\1", quoted) if quoted is not None else plain
            position = _skip(header, parameter.end())
        found.append(Challenge(match[1].lower(), parameters))
    return found


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position


def repository_scope(repository: str, *actions: str) -> str:
    """The scope of these actions on a repository, in the order in which token servers write them."""
    return f"repository:{repository}:{','.join(actions)}"


def merge_scopes(*groups: Iterable[str]) -> tuple[str, ...]:
    """One scope per resource with all its actions, in the order of first mention.

    The order matters: some token servers look at the first scope only.
    """
    merged: dict[str, dict[str, None]] = {}
    for scope in (scope for group in groups for scope in group):
        resource, colon, actions = scope.rpartition(":")
        key, listed = (resource, actions) if colon else (scope, "")
        merged.setdefault(key, {}).update(dict.fromkeys(action for action in listed.split(",") if action))
    return tuple(
        f"{resource}:{','.join(sorted(actions))}" if actions else resource for resource, actions in merged.items()
    )
