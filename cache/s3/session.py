"""What boto3 is for: finding endpoint, region and credentials as the AWS tools do, signing, and the calls whose replies
are XML (multipart uploads, listings, the bucket's rules).

boto3 blocks, so it runs on a few threads of its own; it is imported at the first call and not with this module, as that
takes longer than a build whose every step hits. It makes one attempt at a time: when to try again is decided in one
place for all requests (``cache.s3.bucket``).
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit, urlunsplit

from cache.s3.answers import S3Answer, ServerFailed, answer
from cache.s3.location import S3Location

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60  # a Complete of many parts takes its time
CREDENTIALS_TTL_S = 60.0
"""How long credentials are used without looking whether there are newer ones. boto3 itself renews those of roles
10 to 15 minutes before they expire."""

_THREADS = 8
_NO_CREDENTIALS = "no AWS credentials were found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role)"


@dataclass(frozen=True, slots=True)
class Access:
    """All that it takes to send a request to the bucket. ``ca_bundle`` is a file of trusted certificates, "" = the
    system's."""

    root_url: str
    region: str
    ca_bundle: str
    credentials: Any
    seen_at: float

    @property
    def host(self) -> str:
        """The server's name and port."""
        return urlsplit(self.root_url).netloc

    def url(self, key: str) -> str:
        """The address of an object."""
        return self.root_url + quote(key, safe="/-_.~")

    def sign(self, method: str, url: str, headers: dict[str, str], sha256_hex: str) -> dict[str, str]:
        """``headers`` and those that sign the request (AWS Signature Version 4).

        The digest of the body is signed too: it is the one check of integrity that every server knows. Of the others
        only ``x-amz-`` headers are signed; a proxy on the way may change the rest.
        """
        auth, request_of = _signing()
        request = request_of(method, url, {k: v for k, v in headers.items() if k.lower().startswith("x-amz-")})
        request.context["sha256_hex"] = sha256_hex
        auth(self.credentials, "s3", self.region).add_auth(request)
        return {**headers, **dict(request.headers.items())}


class S3Session:
    """boto3's session and client for one bucket."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-control")
        self._lock = asyncio.Lock()
        self._making = threading.Lock()
        self._made: list[tuple[Any, Any]] = []  # the last one is used; others may still be in use, so they wait here
        self._stale = True
        self._access: Access | None = None

    async def access(self) -> Access:
        """How to reach the bucket now. Raises S3Answer."""
        if self._access is not None and time.monotonic() < self._access.seen_at + CREDENTIALS_TTL_S:
            return self._access
        async with self._lock:
            if self._access is None or time.monotonic() >= self._access.seen_at + CREDENTIALS_TTL_S:
                self._access = await self._on_thread(self._look)
            return self._access

    def renew(self) -> None:
        """Forgets the credentials: the next request looks for them anew, in files too."""
        self._stale = True
        self._access = None

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The reply of a boto3 method for this bucket; one attempt. Raises S3Answer."""
        return cast(dict[str, Any], await self._on_thread(self._call, method, parameters))

    async def presign(self, key: str, expires_s: int) -> str:
        """A URL with which anybody can GET the object for a while. Raises S3Answer."""
        return cast(str, await self._on_thread(self._presign, key, expires_s))

    async def close(self) -> None:
        """Ends the threads, and closes the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for _, client in self._made:
            client.close()

    async def _on_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _translated, work, *arguments)

    def _client(self) -> tuple[Any, Any]:
        """The session and the client; new ones after ``renew``."""
        with self._making:
            if self._stale:
                self._made.append(_make(self._location))
                self._stale = False
            return self._made[-1]

    def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        client = self._client()[1]
        return getattr(client, method)(Bucket=self._location.bucket, **parameters)

    def _presign(self, key: str, expires_s: int) -> Any:
        client = self._client()[1]
        parameters = {"Bucket": self._location.bucket, "Key": key}
        return client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires_s)

    def _look(self) -> Access:
        session, client = self._client()
        credentials = session.get_credentials()
        if credentials is None:
            raise S3Answer(0, _NO_CREDENTIALS)
        parts = urlsplit(self._presign("x", 60))  # boto3 knows where the bucket is; the key is the last letter
        root = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path[:-1], "", ""))
        bundle = session._session.get_config_variable("ca_bundle") or ""
        return Access(
            root, client.meta.region_name or "us-east-1", bundle, credentials.get_frozen_credentials(), time.monotonic()
        )


@functools.cache
def _signing() -> tuple[Any, Any]:
    """boto3's signer, taught to take the digest of a body instead of the body, and what it signs."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    class Auth(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> Any:
            return request.context["sha256_hex"]

    return Auth, AWSRequest


def _make(location: S3Location) -> tuple[Any, Any]:
    import boto3.session
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",  # for URLs too: boto3 would sign those for endpoints of one's own in the old way
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=_THREADS,
        tcp_keepalive=True,
        # Older servers refuse the checksums in trailers that boto3 would send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": _addressing(location)},
    )
    # A session of our own: the default one is shared with whoever else uses boto3 in this process, and not by threads.
    session = boto3.session.Session()
    client = session.client(
        "s3", endpoint_url=location.endpoint_url or None, region_name=location.region or None, config=config
    )
    return session, client


def _addressing(location: S3Location) -> str:
    """Where the bucket's name goes. Servers other than Amazon's rarely have a host name for every bucket, and no
    certificate covers a name with dots. Left to itself, boto3 signs URLs for a host that redirects elsewhere.
    """
    return "path" if location.endpoint_url or "." in location.bucket else "virtual"


def _translated(work: Any, *arguments: Any) -> Any:
    """What ``work`` returns; an error of boto3's becomes ours."""
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    try:
        return work(*arguments)
    except exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(error.response.get("Error", {}).get("Code") or "")
        # A Complete may answer 200 and say in its body that it failed.
        raise answer(500 if status < 300 else status, code) from error
    except RecursionError:
        # On a redirect boto3 asks HEAD for the bucket's region, and on a redirect of that, again. Its thousand frames
        # say no more.
        raise answer(301, "PermanentRedirect") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise S3Answer(0, _NO_CREDENTIALS) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError, HTTPError, OSError) as error:
        raise ServerFailed(0, f"no usable answer ({type(error).__name__})") from error
    except (exceptions.BotoCoreError, ValueError) as error:  # ValueError: the endpoint is no URL
        raise S3Answer(0, f"{type(error).__name__} in the settings for S3") from error
