"""A token for Google's services: from the environment, a credentials file, or the metadata server.

The order of Google's own tools ("How Application Default Credentials works"), after a token that is simply given.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from cache.oci.errors import InvalidCredentials

READ_STORAGE = "https://www.googleapis.com/auth/devstorage.read_only"
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
EXCHANGE_URL = "https://oauth2.googleapis.com/token"
METADATA_HOST = "metadata.google.internal"
GIVEN = ("GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN")

_WELL_KNOWN = ".config/gcloud/application_default_credentials.json"
_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=3)
_OPENSSL_TIMEOUT_S = 20


async def google_token(environ: Mapping[str, str], scope: str = READ_STORAGE) -> str:
    """An access token for what the scope names, or "" where nobody gives one (what is public needs none).

    Raises InvalidCredentials.
    """
    for name in GIVEN:
        if token := environ.get(name):
            return token
    path = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    well_known = Path(environ.get("HOME", "/"), _WELL_KNOWN)
    has_well_known = await asyncio.to_thread(well_known.is_file)
    if path or has_well_known:
        return await _from_file(Path(path) if path else well_known, scope)
    return await _from_metadata(environ.get("GCE_METADATA_HOST") or METADATA_HOST)


async def _from_metadata(host: str) -> str:
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(url, headers={"Metadata-Flavor": "Google"}, allow_redirects=False) as reply,
        ):
            return str((await reply.json(content_type=None))["access_token"]) if reply.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError):
        return ""  # not on Google's machines
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidCredentials(f"the metadata server {host} gave no access token") from error


async def _from_file(path: Path, scope: str) -> str:
    try:
        held = json.loads(await asyncio.to_thread(path.read_bytes))
        kind = held["type"]
        if kind == "service_account":
            assertion = await asyncio.to_thread(_assertion, held, scope)
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        elif kind == "authorized_user":
            form = {name: held[name] for name in ("client_id", "client_secret", "refresh_token")}
            form["grant_type"] = "refresh_token"
        else:
            raise InvalidCredentials(f"{path} is of the type {kind!r}: expected service_account or authorized_user")
    except InvalidCredentials:  # a ValueError too
        raise
    except OSError as error:
        raise InvalidCredentials(f"cannot read Google's credentials {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidCredentials(f"{path} is not a file of Google's credentials") from error
    return await _exchanged(str(held.get("token_uri") or EXCHANGE_URL), form, path)


async def _exchanged(url: str, form: Mapping[str, str], path: Path) -> str:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
            session.post(url, data=form, allow_redirects=False) as reply,
        ):
            if reply.status != 200:
                raise InvalidCredentials(f"Google gives no token for {path}: it answered {reply.status}")
            return str((await reply.json(content_type=None))["access_token"])
    except InvalidCredentials:
        raise
    except (aiohttp.ClientError, TimeoutError) as error:
        raise InvalidCredentials(f"Google gives no token for {path}: {type(error).__name__}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidCredentials(f"Google gives no token for {path}: its answer has none") from error


def _assertion(held: Mapping[str, Any], scope: str) -> str:
    """What a service account proves itself with: claims that its key has signed (RFC 7523)."""
    now_s = int(time.time())
    claims = {
        "iss": held["client_email"],
        "scope": scope,
        "aud": held.get("token_uri") or EXCHANGE_URL,
        "iat": now_s,
        "exp": now_s + 600,
    }
    header = {"alg": "RS256", "typ": "JWT", "kid": held.get("private_key_id", "")}
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{_base64url(_sign(signed.encode(), held['private_key']))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(data: bytes, key_pem: str) -> bytes:
    """RSA with SHA-256, by the openssl program; the key goes through its standard input and touches no disk."""
    file = os.memfd_create("claims")
    try:
        os.write(file, data)
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", "/dev/stdin", f"/dev/fd/{file}"],
            input=key_pem.encode(),
            pass_fds=[file],
            capture_output=True,
            timeout=_OPENSSL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise InvalidCredentials(
            "a service account's key needs the openssl program, which is not here;"
            f" give a token instead ({GIVEN[0]}, from `gcloud auth print-access-token`)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InvalidCredentials(f"openssl took longer than {_OPENSSL_TIMEOUT_S} s to sign") from error
    finally:
        os.close(file)
    if done.returncode:
        raise InvalidCredentials("the service account's private key cannot sign: openssl refuses it")
    return done.stdout
