"""Challenges, scopes, redirects and back-off: the pure rules of the registry client."""

import datetime

import pytest
from yarl import URL

from cache.oci.challenge import Challenge, merge_scopes, parse_challenges, repository_scope
from cache.oci.redirect import RefusedRedirect, Target, check_step, follow, is_loopback, parse_url
from cache.oci.retry import Backoff, retry_after_s

NOW = datetime.datetime(2026, 8, 1, 12, 0, 0, tzinfo=datetime.UTC)
AUTHORIZED = {"Authorization": "Basic c2VjcmV0", "Accept": "a/b", "Range": "bytes=1-", "X-Ours": "1"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="tests"', [("basic", {"realm": "tests"})]),
        ("BASIC REALM=tests", [("basic", {"realm": "tests"})]),
        (
            'Bearer realm="https://t/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://t/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('bEaReR realm = "x" , service = y', [("bearer", {"realm": "x", "service": "y"})]),
        ('Basic realm="a, b", Bearer realm="c"', [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c"})]),
        (r'Basic realm="say \"hi\" \\"', [("basic", {"realm": 'say "hi" \\'})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Negotiate YII=, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Bearer realm="x",error="invalid_token"', [("bearer", {"realm": "x", "error": "invalid_token"})]),
        ("", []),
        ('realm="x"', []),
        ('Bearer realm="not closed', [("bearer", {})]),
    ],
)
def test_challenges_are_read(header, expected):
    assert parse_challenges([header]) == tuple(Challenge(*pair) for pair in expected)


def test_several_headers_and_the_parts_of_a_bearer_challenge():
    basic, bearer = parse_challenges(["Basic realm=x", 'Bearer realm="https://t",scope="a:b:pull c:d:push"'])
    assert (basic.scheme, bearer.realm, bearer.service) == ("basic", "https://t", "")
    assert bearer.scopes == ("a:b:pull", "c:d:push")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([["repository:a:pull"], ["repository:a:push,pull"]], ("repository:a:pull,push",)),
        ([["repository:b:push"], ["repository:a:pull"]], ("repository:b:push", "repository:a:pull")),
        ([["registry:catalog:*"]], ("registry:catalog:*",)),
        ([["repository:h:5000/a:pull"], ["repository:h:5000/a:push"]], ("repository:h:5000/a:pull,push",)),
        ([["plain"], ["plain"]], ("plain",)),
        ([[], []], ()),
    ],
)
def test_scopes_are_merged_in_the_order_of_first_mention(groups, expected):
    assert merge_scopes(*groups) == expected


def test_a_repository_scope():
    assert repository_scope("a/b", "pull", "push") == "repository:a/b:pull,push"


def test_a_redirect_within_the_origin_keeps_every_header():
    target = follow(Target(URL("http://r:5000/v2/a"), AUTHORIZED), "GET", 307, "/elsewhere?x=1")
    assert target == Target(URL("http://r:5000/elsewhere?x=1"), AUTHORIZED)


@pytest.mark.parametrize("location", ["http://r:5001/x", "https://r:5000/x", "http://other:5000/x"])
def test_a_redirect_to_another_origin_loses_authorization_and_what_is_ours(location):
    target = follow(Target(URL("http://r:5000/v2/a"), AUTHORIZED), "GET", 302, location)
    assert target == Target(URL(location), {"Accept": "a/b", "Range": "bytes=1-"})


@pytest.mark.parametrize(("method", "status", "location"), [("GET", 200, "/x"), ("PUT", 307, "/x"), ("GET", 307, None)])
def test_other_replies_are_final(method, status, location):
    assert follow(Target(URL("http://r/v2/"), {}), method, status, location) is None


def test_signed_urls_stay_as_they_came():
    signed = "https://s3.test/a%2Fb?X-Amz-Signature=a%2Bb%3D&path=c/d%20e"
    target = follow(Target(URL("https://r/v2/"), {}), "GET", 307, signed)
    assert target is not None
    assert str(target.url) == signed


@pytest.mark.parametrize(
    ("origin", "location", "why"),
    [
        ("https://r/v2/", "http://r/x", "from https to http"),
        ("http://r/v2/", "http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://r/v2/", "http://[fe80::1]/x", "link-local"),
        ("http://r/v2/", "http://[::ffff:169.254.169.254]/x", "link-local"),
        ("http://r/v2/", "http://127.0.0.1:6379/", "this machine"),
        ("http://r/v2/", "http://localhost/", "this machine"),
        ("http://r/v2/", "file:///etc/passwd", "plain http"),
        ("http://r/v2/", "http://user:pw@r2/x", "plain http"),
        ("http://r/v2/", "http://h:99999/", "not a URL"),
    ],
)
def test_redirects_that_are_refused(origin, location, why):
    with pytest.raises(RefusedRedirect, match=why):
        follow(Target(URL(origin), {}), "GET", 307, location)


def test_steps_that_are_allowed():
    check_step(URL("http://127.0.0.1:5000/"), URL("http://localhost:5001/"))
    check_step(URL("http://registry.corp/"), URL("http://10.0.0.5:9000/bucket"))
    check_step(URL("http://r/"), URL("https://auth.example/token"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("a.localhost", True),
        ("10.0.0.1", False),
        ("r", False),
    ],
)
def test_loopback_hosts(host, expected):
    assert is_loopback(host) is expected


def test_a_url_that_could_not_be_sent_as_it_is_gets_quoted():
    assert parse_url("http://r/a b").raw_path == "/a%20b"


def test_the_schedule_grows_and_ends():
    backoff = Backoff(tries=4, first_s=1, factor=3, limit_s=5)
    assert [backoff.delay_s(failed) for failed in (1, 2, 3, 4)] == [1, 3, 5, None]


def test_the_server_is_waited_for_unless_it_asks_for_too_long():
    backoff = Backoff(limit_s=30)
    assert backoff.delay_s(1, 7) == 7
    assert backoff.delay_s(1, 0) == 1
    assert backoff.delay_s(1, 3600) is None


def test_jitter_shortens_our_own_pause_only():
    assert Backoff(first_s=4).delay_s(1, None, 1.0) == 3
    assert Backoff(first_s=4).delay_s(1, 4, 1.0) == 4


def test_a_schedule_without_tries_is_refused():
    with pytest.raises(ValueError, match="schedule"):
        Backoff(tries=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("12", 12),
        ("Sat, 01 Aug 2026 12:00:30 GMT", 30),
        ("Sat, 01 Aug 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after(value, expected):
    assert retry_after_s(value, NOW) == expected
