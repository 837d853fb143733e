"""``RUN --mount``: its comma-separated fields → a typed value (Dockerfile reference, "RUN --mount").

What belongs to one type only is refused with any other, never passed over.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, cast

import msgspec

from builder.dockerfile.instructions import Word
from builder.dockerfile.statement import did_you_mean
from builder.errors import DockerfileError

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

_KEYS = MappingProxyType(
    {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
)
_SWITCHES = ("readonly", "readwrite", "required")
_COMMON = ("type", "target")
_FIELDS: Mapping[MountType, tuple[str, ...]] = MappingProxyType(
    {
        "bind": (*_COMMON, "from", "source", "readonly", "readwrite"),
        "cache": (*_COMMON, "from", "source", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid"),
        "tmpfs": (*_COMMON, "size", "readwrite"),
        "secret": (*_COMMON, "id", "source", "env", "required", "mode", "uid", "gid"),
        "ssh": (*_COMMON, "id", "required", "mode", "uid", "gid"),
    }
)
_SHARING = ("shared", "private", "locked")
_BOOLEANS = MappingProxyType(
    {**dict.fromkeys(("1", "t", "true"), True), **dict.fromkeys(("0", "f", "false"), False)},
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_LARGEST_ID = 2**32 - 2


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of one RUN; ``target`` as written, and "" where there is none.

    ``from_`` is a stage, a named context or an image, "" for the build context. ``id`` names a cache, a secret or an
    agent. ``writable`` has the type's own default. ``mode``, ``uid`` and ``gid`` are None where they are not given.
    """

    type: MountType
    target: str = ""
    from_: str = ""
    source: str = ""
    id: str = ""
    sharing: Sharing = "shared"
    env: str = ""
    required: bool = False
    writable: bool = False
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def mount_from(word: Word) -> str:
    """The ``from`` of a mount, "" for none, as planning needs it: before anything can be expanded.

    Raises DockerfileError.
    """
    source = dict(_fields(word)).get("from", "")
    if source and "$" in source:
        raise DockerfileError(
            f"--mount from={source}: variables are not expanded here; give the image a stage name by FROM … AS",
            word.span,
        )
    return source or ""


def read_mount(word: Word, expand: Callable[[Word], str]) -> Mount:
    """The mount that the text describes, each value expanded. Raises DockerfileError."""
    values = {
        key: text if text is None or key == "from" else expand(Word(text, word.span)) for key, text in _fields(word)
    }
    try:
        return _mount(values)
    except ValueError as error:
        raise DockerfileError(f"--mount={word.text}: {error}", word.span) from None


def _fields(word: Word) -> list[tuple[str, str | None]]:
    """Key and value of each field; the value is None where there is no ``=``."""
    try:
        (row,) = csv.reader([word.text], strict=True)
    except (csv.Error, ValueError):
        raise DockerfileError(f"--mount={word.text}: expected key=value, separated by commas", word.span) from None
    fields = []
    known = tuple(dict.fromkeys(name for names in _FIELDS.values() for name in names))
    for text in row:
        key, equals, value = text.partition("=")
        key = _KEYS.get(key.lower(), key.lower())
        if key not in known:
            hint = did_you_mean(key, (*known, *_KEYS))
            raise DockerfileError(f"--mount={word.text}: unknown key {key!r}{hint}", word.span)
        if not equals and key not in _SWITCHES:
            raise DockerfileError(f"--mount={word.text}: {key} needs a value: {key}=VALUE", word.span)
        fields.append((key, value if equals else None))
    return fields


def _mount(values: Mapping[str, str | None]) -> Mount:
    kind = (values.get("type") or "bind").lower()
    if kind not in _FIELDS:
        raise ValueError(f"unknown type {kind!r}: expected {', '.join(_FIELDS)}{did_you_mean(kind, tuple(_FIELDS))}")
    mount_type = cast("MountType", kind)
    for key in values:
        if key not in _FIELDS[mount_type]:
            raise ValueError(f"{key} has no meaning for type={mount_type}")
    mount = Mount(
        type=mount_type,
        target=_text(values, "target"),
        from_=_text(values, "from"),
        source=_text(values, "source"),
        id=_text(values, "id"),
        sharing=_sharing(_text(values, "sharing").lower() or "shared"),
        env=_text(values, "env"),
        required=_switch(values, "required"),
        writable=_writable(values, mount_type),
        size_bytes=_size(_text(values, "size")),
        mode=_mode(_text(values, "mode")),
        uid=_id(_text(values, "uid"), "uid"),
        gid=_id(_text(values, "gid"), "gid"),
    )
    _refuse_contradictions(mount)
    return mount


def _refuse_contradictions(mount: Mount) -> None:
    if mount.type in ("bind", "cache", "tmpfs") and not mount.target:
        raise ValueError("a target is missing: target=PATH")
    if mount.type == "secret":
        if mount.id and mount.source:
            raise ValueError("id and source are the same thing: give one")
        if not (mount.id or mount.source or mount.target):
            raise ValueError("which secret? id=NAME or target=PATH is missing")


def _text(values: Mapping[str, str | None], key: str) -> str:
    return values.get(key) or ""


def _switch(values: Mapping[str, str | None], key: str) -> bool:
    if key not in values:
        return False
    value = values[key]
    if value is None:
        return True
    if value.lower() not in _BOOLEANS:
        raise ValueError(f"{key}={value}: expected true or false")
    return _BOOLEANS[value.lower()]


def _writable(values: Mapping[str, str | None], mount_type: MountType) -> bool:
    """The last of readonly and readwrite counts; without them caches and tmpfs are writable."""
    writable = mount_type in ("cache", "tmpfs")
    for key in values:
        if key in ("readonly", "readwrite"):
            writable = _switch(values, key) is (key == "readwrite")
    return writable


def _sharing(text: str) -> Sharing:
    if text not in _SHARING:
        raise ValueError(f"sharing={text}: expected {', '.join(_SHARING)}{did_you_mean(text, _SHARING)}")
    return cast("Sharing", text)


def _size(text: str) -> int:
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"size={text}: expected a number of bytes, such as 64m or 1g")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def _mode(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch("[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise ValueError(f"mode={text}: expected an octal mode such as 0600")
    return int(text, 8)


def _id(text: str, key: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_ID):
        raise ValueError(f"{key}={text}: expected a number")
    return int(text)
