"""What the proxy logs: a line for each request, one for later of pushes, deletions and refusals, and never a secret."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
import structlog
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from proxy.config import LogStyle
from proxy.observe.log import REQUEST_ID, configure_logging
from proxy.observe.secret_text import MASK, mask_secrets, names_secret
from tests.proxy.processes import Process, started, until
from tests.proxy.running import client_of, get, make_image, push, scripted_upstream

PASSWORD = "correct-horse-battery"
TOKEN = "static-token-of-the-ci-job"
SIGNATURE = "c0ffee5ea1ed"
OPTIONS = ("--default-upstream", "up.test", "--log-format", "json")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "the header was basic {}, which is wrong",
        "GET https://user:{}@host/v2/ failed",
        "https://{}@host:5000/x",
        "307 to https://bucket.test/key?X-Amz-Signature={}&X-Amz-Date=1",
        "/v2/a/blobs/uploads/x?_state={}",
        "password={}",
        "refresh_token: {}",
        '{{"access_token": "{}", "expires_in": 300}}',
        "{{'secret': '{}'}}",
        '{{\\"token\\": \\"{}\\"}}',
        "AWS_SECRET_ACCESS_KEY={}",
        "x-api-key: {}",
    ],
)
@settings(max_examples=25)
@given(secret=st.text("abcXYZ0189-._~+/=%", min_size=4, max_size=40).map(lambda text: "s3cr3t" + text))
def test_what_looks_like_a_secret_is_masked(text: str, secret: str):
    masked = mask_secrets(f"before {text.format(secret)} after")
    assert "s3cr3t" not in masked
    assert MASK in masked
    assert (masked.startswith("before "), masked.endswith("after")) == (True, True)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://ghcr.io/v2/org/app/manifests/1 failed: no answer in time",
        "UNAUTHORIZED: authentication required",
        "user 'bob' of up.test may not do this",
        "the token server's reply is not JSON that fits",
        f"expected {Digest.of(b'')}, but the manifest came with another",
    ],
)
def test_other_text_stays(text: str):
    assert mask_secrets(text) == text


@pytest.mark.parametrize(
    ("key", "secret"),
    [("Authorization", True), ("new_password", True), ("token", True), ("path", False), ("who", False)],
)
def test_names_of_secrets(key: str, secret: bool):
    assert names_secret(key) is secret


@pytest.fixture
def sink():
    """Where the log goes; other tests get their own back."""
    before = structlog.get_config()
    yield io.StringIO()
    structlog.configure(**before)


def test_fields_are_masked_whatever_they_are(sink: io.StringIO):
    configure_logging(sink, LogStyle(form="json"))
    log = structlog.get_logger()
    try:
        raise ValueError("cannot ask https://user:hunter2@host/?sig=hunter2")
    except ValueError:
        log.exception("it_broke", password="hunter2", problems=["token=hunter2", 3], error=ValueError("Basic hunter2"))
    line = json.loads(sink.getvalue())
    assert "hunter2" not in sink.getvalue()
    assert (line["event"], line["level"], line["password"]) == ("it_broke", "error", MASK)
    assert "ValueError: cannot ask" in line["exception"]


def test_the_style_can_be_changed(sink: io.StringIO):
    log = structlog.get_logger()
    configure_logging(sink, LogStyle(form="json", level="warning"))
    log.info("not_said")
    configure_logging(sink, LogStyle(form="text", level="debug"))
    log.debug("said", digest="sha256:abc")
    assert "not_said" not in sink.getvalue()
    assert re.search(r"\[debug *\] said +digest=sha256:abc", sink.getvalue())


def test_lines_name_their_request(sink: io.StringIO):
    configure_logging(sink, LogStyle(form="json"))
    kept = REQUEST_ID.set("r-1")
    structlog.get_logger().info("it_happened")
    REQUEST_ID.reset(kept)
    structlog.get_logger().info("it_happened")
    first, second = map(json.loads, sink.getvalue().splitlines())
    assert (first["request_id"], "request_id" in second) == ("r-1", False)


def users(tmp: Path) -> tuple[str, ...]:
    """A proxy where ci may do all under cache/, and bob only read there."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp / "users").write_text(f"bob:{hashed}\n")
    (tmp / "tokens").write_text(f"ci:{TOKEN}\n")
    rules = ("ci cache all", "bob cache/app read", "guest * read,write,fetch")
    options = [part for rule in rules for part in ("--rule", rule)]
    return ("--users", f"{tmp}/users", "--tokens", f"{tmp}/tokens", *options)


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def chosen(line: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: line[name] for name in names}


async def test_a_line_for_each_request(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream:
        upstream.manifests["1"], upstream.blobs = image.manifest.raw, {str(image.layer): image.blobs[image.layer]}
        with started(tmp_path, "--upstream", f"up.test={upstream.url}", *OPTIONS) as process:
            sane, insane = "job-7/step:2", "two words"
            said = await get(f"{process.url}/v2/org/app/manifests/1", **{"X-Request-Id": sane})
            blob = await get(f"{process.url}/v2/org/app/blobs/{image.layer}", Range="bytes=10-19")
            await process.logged("blob_fetched")
            again = await get(f"{process.url}/v2/org/app/blobs/{image.layer}", **{"X-Request-Id": insane})
            await get(f"{process.url}/healthz")
            await get(f"{process.url}/v2/up.test/%1b%00?secret=1")
            manifest, part, whole, wrong = await process.logged("request_served", 4)
            (fetched,) = process.lines("blob_fetched")
    names = ("who", "method", "kind", "repository", "reference", "status", "outcome", "bytes", "upstream", "level")
    ours = (
        "anonymous",
        "GET",
        "manifest",
        "up.test/org/app",
        "1",
        200,
        "miss",
        len(image.manifest.raw),
        "up.test",
        "info",
    )
    assert tuple(manifest[name] for name in names) == ours
    assert chosen(part, "kind", "reference", "status", "bytes", "outcome") == {
        "kind": "blob", "reference": str(image.layer), "status": 206, "bytes": 10, "outcome": "miss"
    }  # fmt: skip
    assert chosen(whole, "bytes", "outcome") == {"bytes": len(image.blobs[image.layer]), "outcome": "hit"}
    assert chosen(wrong, "kind", "repository", "status") == {
        "kind": "other", "repository": "/v2/up.test/%1B%00", "status": 400
    }  # fmt: skip
    assert 0 <= manifest["duration_s"] < 60
    assert manifest["request_id"] == said[1]["X-Request-ID"] == sane
    assert fetched["request_id"] == part["request_id"] == blob[1]["X-Request-ID"]
    assert whole["request_id"] == again[1]["X-Request-ID"] not in (insane, part["request_id"])


async def test_a_line_for_later_of_each_push_deletion_and_refusal(tmp_path: Path):
    image = make_image(layer_bytes=1000)
    with started(tmp_path, "--upstream", "up.test=http://127.0.0.1:1", *users(tmp_path), *OPTIONS) as process:
        async with client_of(process.url, Credential("ci", TOKEN)) as client:
            await push(client, "cache/app", "1", image)
            await client.delete_tag("cache/app", "1")
            await client.delete_blob("cache/app", image.layer)
        where = f"{process.url}/v2/cache"
        async with aiohttp.ClientSession() as session:
            await session.get(f"{process.url}/v2/")
            await session.delete(f"{where}/app/manifests/1", headers=basic("bob", PASSWORD))
            await session.get(f"{where}/other/manifests/1", headers=basic("bob", PASSWORD))
            await session.get(f"{where}/app/manifests/1", headers=basic("bob", "wrong"))
            await session.put(f"{process.url}/v2/org/app/manifests/1", data=image.manifest.raw, headers=basic("x", "y"))
        lines = await audited(process, 9)
    assert {line.pop("digest") for line in lines[:2]} == set(map(str, image.blobs))
    accepted = {"decision": "accepted", "who": "ci", "repository": "cache/app", "source": "here"}
    refused = {"event": "access_refused", "decision": "refused", "who": "bob", "tags": ["1"]}
    failed = {"decision": "failed", "who": "guest", "repository": "up.test/org/app", "source": "up.test"}
    assert lines == [
        {**accepted, "event": "blob_push_answered"},
        {**accepted, "event": "blob_push_answered"},
        {**accepted, "event": "manifest_push_answered", "tags": ["1"], "digest": str(image.manifest.digest)},
        {**accepted, "event": "manifest_delete_answered", "tags": ["1"]},
        {**accepted, "event": "blob_delete_answered", "digest": str(image.layer)},
        {**refused, "repository": "cache/app", "source": "rule"},
        {**refused, "repository": "cache/other", "source": "rule"},
        {**refused, "repository": "cache/app", "source": "credentials"},
        {**failed, "event": "manifest_push_answered", "tags": ["1"]},
    ]


async def audited(process: Process, count: int) -> list[dict[str, Any]]:
    """The audit lines, without what changes or is said elsewhere."""

    def found() -> list[dict[str, Any]]:
        return [line for line in process.lines() if line.get("audit") is True]

    await until(lambda: len(found()) >= count, f"{count} lines in {process.log.read_text()}")
    dropped = {"audit", "level", "timestamp", "request_id", "status", "method", "right"}
    return [{key: value for key, value in line.items() if key not in dropped} for line in found()]


async def test_no_secret_in_all_that_a_run_logs(tmp_path: Path):
    """Users, tokens, an upstream that redirects to a signed URL, says secrets in its errors, and breaks off."""
    image = make_image()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "signed" in request.path:
            return web.Response(status=503, text=f"no key for Signature={SIGNATURE}")
        if "/blobs/" in request.path:
            raise web.HTTPTemporaryRedirect(f"/signed/{request.match_info['path']}?X-Amz-Signature={SIGNATURE}")
        shown = request.headers.get("Authorization")
        said = f"https://robot:{PASSWORD}@up.test/?sig={SIGNATURE} refused Authorization: {shown}"
        return web.json_response({"errors": [{"code": "DENIED", "message": said}]}, status=403)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        options = ("--upstream", f"up.test={url}", *users(tmp_path), *OPTIONS, "--log-level", "debug")
        with started(tmp_path, *options) as process:
            async with client_of(process.url, Credential("ci", TOKEN)) as client:
                await push(client, "cache/app", "1", image)
            async with aiohttp.ClientSession() as session:
                for path in (f"v2/org/app/blobs/{image.layer}", "v2/org/app/manifests/1", "v2/cache/app/manifests/1"):
                    for headers in (basic("robot", PASSWORD), basic("bob", PASSWORD + "!"), {"Authorization": TOKEN}):
                        await session.get(f"{process.url}/{path}?access_token={TOKEN}", headers=headers)
                await session.post(
                    f"{process.url}/_crossdock/v1/token",
                    data={"grant_type": "password", "username": "bob", "password": PASSWORD + "?"},
                )
            await process.logged("request_served", 12)
            said = process.log.read_text()
    finally:
        await runner.cleanup()
    assert "DENIED" in said or "access_refused" in said
    encoded = [base64.b64encode(f"{name}:{PASSWORD}".encode()).decode() for name in ("robot", "bob")]
    assert not [secret for secret in (PASSWORD, TOKEN, SIGNATURE, *encoded) if secret in said]
