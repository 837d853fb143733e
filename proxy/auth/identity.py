"""Who asks: the credential that a request brings, and the tokens that carry it.

Clients ask ``GET /v2/`` first and bring no credentials later when that says 200, so it says 401 with a Bearer challenge
that points at our own token endpoint. The token issued there *is* the client's own credential in another form: the
proxy keeps no sessions, and any replica understands the token. Who judges the credential, ``proxy.auth.authenticate``
knows. A token is therefore as sensitive as the ``Authorization: Basic`` header that it came from, and no more.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from cache.oci.credentials import ANONYMOUS, Credential
from proxy.errors import CredentialsNeeded, InvalidRequest

SERVICE = "crossdock"
TOKEN_PATH = "/_crossdock/v1/token"  # noqa: S105 - a path, not a secret
TOKEN_LIFE_S = 3600
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


class _Carried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token holds: a user name and password, or an identity token."""

    u: str = ""
    p: str = ""
    i: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where a client gets a token, and for what; ``str`` gives the ``WWW-Authenticate`` value."""

    realm: str
    scope: str = ""

    def __str__(self) -> str:
        scope = f',scope="{self.scope}"' if self.scope else ""
        return f'Bearer realm="{self.realm}",service="{SERVICE}"{scope}'


def make_challenge(scheme: str, host: str, scope: str = "") -> Challenge:
    """The challenge for a client that reached us as ``host``. Raises InvalidRequest when that is no host name."""
    if not _HOST.fullmatch(host):
        raise InvalidRequest("UNSUPPORTED", "the Host header is not a host name")
    return Challenge(f"{scheme}://{host}{TOKEN_PATH}", scope)


def read_authorization(header: str | None) -> Credential:
    """The credential in an ``Authorization`` header; anonymous when there is none, or an empty Basic one.

    Raises CredentialsNeeded for what cannot be read.
    """
    if header is None or not header.strip():
        return ANONYMOUS
    scheme, _, value = header.strip().partition(" ")
    match scheme.lower():
        case "basic":
            return _from_basic(value.strip())
        case "bearer":
            return _from_token(value.strip())
    raise CredentialsNeeded("the Authorization header is neither Basic nor Bearer")


def issue_token(credential: Credential) -> str:
    """A token that ``read_authorization`` turns back into the credential."""
    carried = _Carried(credential.username, credential.password, credential.identity_token)
    return base64.urlsafe_b64encode(msgspec.json.encode(carried)).decode().rstrip("=")


def read_token_form(form: Mapping[str, str]) -> Credential:
    """The credential in an OAuth2 token request (``grant_type`` password or refresh_token).

    Raises InvalidRequest.
    """
    match form.get("grant_type"):
        case "password":
            return _credential(form.get("username", ""), form.get("password", ""), "")
        case "refresh_token":
            return _credential("", "", form.get("refresh_token", ""))
    raise InvalidRequest("UNSUPPORTED", "grant_type must be password or refresh_token")


def _credential(username: str, password: str, identity_token: str) -> Credential:
    if not username and not identity_token:
        return ANONYMOUS
    return Credential(username=username, password=password, identity_token=identity_token)


def _from_basic(value: str) -> Credential:
    try:
        username, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialsNeeded("the Basic credentials cannot be read") from error
    if not colon:
        raise CredentialsNeeded("the Basic credentials have no colon")
    return _credential(username, password, "")


def _from_token(value: str) -> Credential:
    try:
        data = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        carried = msgspec.json.decode(data, type=_Carried)
    except (binascii.Error, ValueError) as error:
        raise CredentialsNeeded("this token is not one of ours") from error
    return _credential(carried.u, carried.p, carried.i)
