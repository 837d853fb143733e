"""Contexts that are fetched: from the web, a real S3 server, and fakes of Google's and Azure's storage, which note what
they are asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import aiohttp.web
import pytest
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from builder import events
from builder.contexts.cloud_storage import azure_target, google_target
from builder.contexts.local_inputs import LocalInputs, local_inputs
from builder.contexts.locations import AzureBlob, GoogleObject, MainContext, S3Object, TarFile, WebArchive
from builder.errors import ContextError
from builder.options import BuildOptions
from cache.oci.descriptor import Platform
from cache.oci.errors import InvalidCredentials
from cache.oci.google_credentials import google_token
from tests.builder.servers import web
from tests.builder.test_contexts import FILES, packed
from tests.s3_servers import BUCKET, run_seaweedfs, s3_credentials

__all__ = ["s3_credentials", "web"]

PACKED = packed(FILES)
KEY = base64.b64encode(b"the account's key").decode()
LINUX = Platform(os="linux", architecture="amd64")


async def fetched(tmp_path: Path, place: MainContext, environ: dict[str, str]) -> LocalInputs:
    options = BuildOptions(context=place, platforms=(LINUX,), build_platform=LINUX, state_dir=tmp_path)
    heard: list[events.Event] = []
    return await local_inputs(options, tmp_path / "inputs", {"HOME": str(tmp_path), **environ}, heard.append)


def files(inputs: LocalInputs) -> set[str]:
    return {str(path.relative_to(inputs.context)) for path in inputs.context.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b""), "answered 404"),
        ((200, {}, b""), "it is empty"),
        ((200, {}, b"<html>" * 200), "not a tar archive"),
        ((200, {}, PACKED[:-20]), "is damaged after"),
        ((200, {}, b"\x1f\x8b" + b"x" * 600), "is damaged after"),
        ((200, {}, packed({"../x": ""})), "'../x' in the archive has .."),
        ((200, {}, packed({"x": ""})), "no Dockerfile 'Dockerfile'"),
    ],
)
async def test_bad_archives_from_the_web(tmp_path, web, answer, said):
    with pytest.raises(ContextError) as caught:
        await fetched(tmp_path, WebArchive(web.answer("/c.tar", answer) + "?token=sesame"), {})
    assert said in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_a_stream_that_breaks_off_is_fetched_again_into_a_new_directory(tmp_path, web):
    cut = (200, {"Content-Length": str(len(PACKED) * 2)}, packed({**FILES, "only-in-the-first": ""}))
    inputs = await fetched(tmp_path, WebArchive(web.answer("/c", cut, (503, {}, b""), (200, {}, PACKED))), {})
    assert (files(inputs), len(web.asked)) == (set(FILES), 3)


# S3


async def test_s3(tmp_path, s3_credentials, monkeypatch):
    with run_seaweedfs() as servers:
        monkeypatch.setenv("AWS_CA_BUNDLE", servers[1].ca_bundle)
        servers[0].client().put_object(Bucket=BUCKET, Key="d/context.tar.gz", Body=PACKED)
        for server in servers:
            environ = {"S3_ENDPOINT": server.endpoint_url, "S3_FORCE_PATH_STYLE": "true"}
            inputs = await fetched(tmp_path, S3Object(BUCKET, "d/context.tar.gz"), environ)
            assert files(inputs) == set(FILES)
        with pytest.raises(ContextError, match="cannot fetch s3://crossdock/none: NoSuchKey"):
            await fetched(tmp_path, S3Object(BUCKET, "none"), environ)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
        with pytest.raises(ContextError, match=r"cannot fetch s3://crossdock/d/context.tar.gz: Sig") as caught:
            await fetched(tmp_path, S3Object(BUCKET, "d/context.tar.gz"), environ)
        assert "sesame" not in str(caught.value)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(ContextError, match="credentials come from AWS' variables and files"):
            await fetched(tmp_path, S3Object(BUCKET, "d/context.tar.gz"), environ)


# Google


async def test_google_s_emulator(tmp_path, web):
    web.answer("/storage/v1/b/bucket/o/d%2Fcontext.tar.gz", (200, {}, PACKED))
    place = GoogleObject("bucket", "d/context.tar.gz")
    assert files(await fetched(tmp_path, place, {"STORAGE_EMULATOR_HOST": web.url})) == set(FILES)
    assert web.asked == [("/storage/v1/b/bucket/o/d%2Fcontext.tar.gz?alt=media", None)]
    with pytest.raises(ContextError, match=r"cannot fetch gs://bucket/none: the server answered 404"):
        await fetched(tmp_path, GoogleObject("bucket", "none"), {"STORAGE_EMULATOR_HOST": web.url})


def test_google_itself():
    target = google_target(GoogleObject("b", "o"), "", "t")
    assert str(target.url) == "https://storage.googleapis.com/storage/v1/b/b/o/o?alt=media"
    assert target.headers == {"Authorization": "Bearer t"}


async def test_a_token_of_the_environment_comes_first(tmp_path):
    assert await google_token({"GOOGLE_OAUTH_ACCESS_TOKEN": "t", "GOOGLE_APPLICATION_CREDENTIALS": "/none"}) == "t"


async def test_a_token_of_the_metadata_server(tmp_path, web):
    url = web.answer(
        "/computeMetadata/v1/instance/service-accounts/default/token", (200, {}, b'{"access_token": "from metadata"}')
    )
    environ = {"HOME": str(tmp_path), "GCE_METADATA_HOST": url.split("/")[2]}
    assert await google_token(environ) == "from metadata"
    assert web.headers[0]["Metadata-Flavor"] == "Google"
    web.answer(url.removeprefix(web.url), (404, {}, b""))
    assert await google_token(environ) == ""
    web.answer(url.removeprefix(web.url), (200, {}, b"{}"))
    with pytest.raises(InvalidCredentials, match="gave no access token"):
        await google_token(environ)


@pytest.fixture
async def token_server() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """The URL of a server that exchanges everything for a token, and the forms that came to it."""
    forms: list[dict[str, str]] = []

    async def exchange(request: aiohttp.web.Request) -> aiohttp.web.Response:
        forms.append({name: str(value) for name, value in (await request.post()).items()})
        return aiohttp.web.json_response({"access_token": "exchanged"})

    app = aiohttp.web.Application()
    app.router.add_post("/token", exchange)
    async with TestServer(app) as server:
        yield str(server.make_url("/token")), forms


async def test_a_service_account_signs(tmp_path, token_server):
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    url, forms = token_server
    file = tmp_path / "account.json"
    held = {"type": "service_account", "client_email": "me@x", "private_key": pem, "token_uri": url}
    file.write_text(json.dumps(held))
    assert await google_token({"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) == "exchanged"
    signed, _, signature = forms[0]["assertion"].rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    key.public_key().verify(raw, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
    assert (claims["iss"], claims["aud"]) == ("me@x", url)
    file.write_text(json.dumps({**held, "private_key": "sesame"}))
    with pytest.raises(InvalidCredentials, match="cannot sign") as caught:
        await google_token({"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    assert "sesame" not in str(caught.value)


async def test_a_user_s_refresh_token(tmp_path, token_server):
    url, forms = token_server
    file = tmp_path / ".config/gcloud/application_default_credentials.json"
    file.parent.mkdir(parents=True)
    held = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r", "token_uri": url}
    file.write_text(json.dumps(held))
    assert await google_token({"HOME": str(tmp_path)}) == "exchanged"
    assert forms == [{"client_id": "i", "client_secret": "s", "refresh_token": "r", "grant_type": "refresh_token"}]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "service_account"}', '{"type": "external_account"}'])
async def test_credentials_that_are_none(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidCredentials, match=r"c\.json"):
        await google_token({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "c.json")})


# Azure


async def test_azure_s_emulator_with_a_key(tmp_path, web):
    web.answer("/account/container/d/blob", (200, {}, PACKED))
    environ = {
        "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=account;AccountKey={KEY};BlobEndpoint={web.url}/account;",
    }
    place = AzureBlob("https://account.blob.core.windows.net/container/d/blob")
    assert files(await fetched(tmp_path, place, environ)) == set(FILES)
    sent = web.headers[0]
    signed = "GET" + "\n" * 12 + f"x-ms-date:{sent['x-ms-date']}\nx-ms-version:{sent['x-ms-version']}\n"
    signed += "/account/account/container/d/blob"
    expected = base64.b64encode(hmac.digest(b"the account's key", signed.encode(), hashlib.sha256)).decode()
    assert web.asked[0][1] == f"SharedKey account:{expected}"


async def test_azure_with_a_signature_in_the_url(tmp_path, web):
    web.answer("/container/blob", (403, {}, b""))
    place = AzureBlob("https://account.blob.core.windows.net/container/blob?sv=1&sig=sesame%2B")
    environ = {"AZURE_STORAGE_ACCESS_KEY": KEY, "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={web.url}"}
    with pytest.raises(ContextError, match="answered 403") as caught:
        await fetched(tmp_path, place, environ)
    assert web.asked == [("/container/blob?sv=1&sig=sesame%2B", None)]
    assert "sesame" not in str(caught.value)


def test_azure_itself():
    place = AzureBlob("https://account.blob.core.windows.net/container/blob")
    target = azure_target(place, {"AZURE_STORAGE_ACCESS_KEY": KEY}, formatdate(0, usegmt=True))
    assert str(target.url) == place.url
    assert target.headers["Authorization"].startswith("SharedKey account:")
    with pytest.raises(ValueError, match="is not base64") as caught:
        azure_target(place, {"AZURE_STORAGE_ACCESS_KEY": "sesame!"}, "")
    assert "sesame" not in str(caught.value)


# Ends


async def test_an_interrupted_fetch_leaves_no_thread_behind(tmp_path):
    loop = asyncio.get_running_loop()
    asked = loop.create_future()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + PACKED[:100])
        await writer.drain()
        asked.set_result(None)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/c.tar"
    fetching = asyncio.create_task(fetched(tmp_path, WebArchive(url), {}))
    await asyncio.wait_for(asked, 30)
    await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(fetching, 30)
    server.close()


@pytest.mark.parametrize(("name", "said"), [("none", "is not a file"), ("d", "is not a file")])
async def test_archives_that_are_not_there(tmp_path, name, said):
    (tmp_path / "d").mkdir()
    with pytest.raises(ContextError, match=said):
        await fetched(tmp_path, TarFile(tmp_path / name), {})
