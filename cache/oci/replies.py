"""Reading registries' replies: their errors, lengths and places (distribution-spec, "Error Codes" and "Endpoints")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from yarl import URL

from cache.oci.errors import Denied, ErrorDetail, NotFound, RateLimited, RegistryError
from cache.oci.redirect import check_step, parse_url, same_origin
from cache.oci.retry import retry_after_s

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UPLOAD_RANGE = re.compile(r"(?:bytes=)?(\d+)-(\d+)")
_MESSAGE_CHARACTERS = 500
_DETAILS = 5


class _Entry(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_Entry, ...]


def error_details(body: bytes) -> tuple[ErrorDetail, ...]:
    """The entries of an error reply; none when the body is something else (a proxy's HTML page, nothing)."""
    try:
        entries = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(ErrorDetail(entry.code, _plain(entry.message)) for entry in entries[:_DETAILS])


def _plain(text: str) -> str:
    """One printable line, so that a registry cannot write into our terminal or log."""
    return "".join(char if char.isprintable() else " " for char in text[:_MESSAGE_CHARACTERS])


def error_of(
    method: str, url: str, status: int, headers: Mapping[str, str], body: bytes, *, now: datetime
) -> RegistryError:
    """The error that a reply stands for."""
    details = error_details(body)
    wait_s = retry_after_s(headers.get("Retry-After"), now)
    error: RegistryError
    match status:
        case 404:
            error = NotFound(method, url, status, details)
        case 401 | 403:
            error = Denied(method, url, status, details)
            error.challenge = headers.get("WWW-Authenticate", "")
        case 429:
            error = RateLimited(method, url, details, retry_after_s=wait_s)
        case _:
            error = RegistryError(method, url, status, details)
    error.retry_after_s = wait_s
    return error


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """The members of a header that is a list, over all its lines (RFC 9110, section 5.6.1)."""
    return tuple(member.strip() for value in values for member in value.split(",") if member.strip())


def content_length(headers: Mapping[str, str]) -> int | None:
    """The body's length in bytes, where it is said."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, end (exclusive) and whole length of a 206's body; None when it does not say."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if not match:
        return None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def received_bytes(headers: Mapping[str, str]) -> int | None:
    """How many bytes an upload session holds, by its ``Range: 0-<last>``.

    ``0-0`` is what registries also answer before the first byte, and is taken for that.
    """
    match = _UPLOAD_RANGE.fullmatch(headers.get("Range", ""))
    if not match:
        return None
    last = int(match[2])
    return last + 1 if last else 0


def least_chunk_bytes(headers: Mapping[str, str]) -> int:
    """The size below which an upload's chunks are refused, the last one excepted; 0 = there is none."""
    text = headers.get("OCI-Chunk-Min-Length", "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def upload_location(base: URL, requested: URL, location: str) -> str:
    """Where an upload goes on, absolute, with its query as it came. Raises ValueError.

    A registry behind a TLS proxy may call itself http: the same host is then reached by https, as we came.
    """
    if not location:
        raise ValueError("no Location")
    url = requested.join(parse_url(location))
    if base.scheme == "https" and url.scheme == "http" and url.host == base.host and url.explicit_port in (None, 443):
        return f"https://{base.authority}{url.raw_path_qs}"
    if base.scheme == "https" and url.scheme != "https":
        raise ValueError(f"a Location without TLS at {url.host}")
    check_step(requested, url)
    return str(url)


def with_query(location: str, parameter: str) -> str:
    """The location with one more (already encoded) query parameter; what is there stays as it is."""
    return f"{location}{'&' if '?' in location else '?'}{parameter}"


def next_page(requested: URL, link: str) -> str | None:
    """The URL of the next page by a ``Link`` header; None when there is none or it leads elsewhere."""
    match = re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', link)
    if not match:
        return None
    url = requested.join(parse_url(match[1]))
    return str(url) if same_origin(requested, url) else None
