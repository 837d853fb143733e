"""Requests for objects of Google Cloud Storage and Azure's blob storage, as values (pure).

One GET each: the storage API's ``objects.get`` with ``alt=media``, and "Get Blob" with a Shared Key (Azure Storage REST
API, "Authorize with Shared Key") or with the signature that is in the URL.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from yarl import URL

from builder.contexts.locations import AzureBlob, GoogleObject
from cache.oci.redirect import Target, parse_url

GOOGLE_API = "https://storage.googleapis.com"
AZURE_VERSION = "2021-08-06"


def google_target(place: GoogleObject, emulator: str, token: str) -> Target:
    """The request for the object, anonymous without a token. ``emulator`` is STORAGE_EMULATOR_HOST, "" for Google."""
    base = GOOGLE_API
    if emulator:
        base = emulator if "://" in emulator else f"http://{emulator}"
    path = f"/storage/v1/b/{quote(place.bucket, safe='')}/o/{quote(place.name, safe='')}?alt=media"
    return Target(parse_url(base.rstrip("/") + path), {"Authorization": f"Bearer {token}"} if token else {})


def azure_target(place: AzureBlob, environ: Mapping[str, str], date: str) -> Target:
    """The request for the blob at ``date`` (RFC 1123).

    ``environ`` may have AZURE_STORAGE_ACCESS_KEY, or AZURE_STORAGE_CONNECTION_STRING with AccountKey and BlobEndpoint,
    which is how an emulator is named. Raises ValueError for a key that is none.
    """
    told = (part.partition("=") for part in environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"))
    connection = {name: value for name, equals, value in told if equals}
    url = parse_url(place.url).with_fragment(None)
    if endpoint := connection.get("BlobEndpoint"):
        url = URL(endpoint.rstrip("/") + url.raw_path_qs, encoded=True)
    headers = {"x-ms-date": date, "x-ms-version": AZURE_VERSION}
    key = environ.get("AZURE_STORAGE_ACCESS_KEY") or connection.get("AccountKey", "")
    if place.is_signed or not key:
        return Target(url, {"x-ms-version": AZURE_VERSION})
    account = connection.get("AccountName") or place.account
    return Target(url, {**headers, "Authorization": f"SharedKey {account}:{_signature(account, key, url, headers)}"})


def _signature(account: str, key: str, url: URL, headers: Mapping[str, str]) -> str:
    named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    query = "".join(f"\n{name.lower()}:{value}" for name, value in sorted(url.query.items()))
    signed = "GET" + "\n" * 12 + named + f"/{account}{urlsplit(str(url)).path}" + query
    try:
        secret = base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ValueError("the key of the storage account is not base64") from None
    return base64.b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256)).decode()
