"""JSON to and from the OCI values, with our types inside (``Digest``)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest, InvalidManifest

T = TypeVar("T")


def _decode_hook(expected: type, value: Any) -> Any:
    if expected is Digest and isinstance(value, str):
        return Digest.parse(value)
    raise ValueError(f"expected {expected.__name__}, got {type(value).__name__}")


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Digest):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(data: bytes, kind: type[T], what: str) -> T:
    """``data`` as a ``kind``; a member that is null is as good as none, as programs in Go write and read it.

    Raises InvalidManifest that says which ``what`` and which field.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind, dec_hook=_decode_hook)
        except msgspec.ValidationError:
            # Nulls are rare: the plain way comes first, and its error is lost only to the same one again.
            present = _without_nulls(msgspec.json.decode(data))
            return msgspec.convert(present, type=kind, dec_hook=_decode_hook)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidDigest, RecursionError) as error:
        raise InvalidManifest(f"not a valid {what}: {error}") from error


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(member) for name, member in value.items() if member is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def encode(value: object) -> bytes:
    """Compact JSON in the order of the fields, the same bytes every time."""
    return msgspec.json.encode(value, enc_hook=_encode_hook)
