from __future__ import annotations

import base64

import pytest

from cache.oci.credentials import ANONYMOUS, Credential
from proxy.auth.identity import issue_token, make_challenge, read_authorization, read_token_form
from proxy.errors import CredentialsNeeded, InvalidRequest


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ANONYMOUS),
        ("", ANONYMOUS),
        (basic(":"), ANONYMOUS),
        (basic("u:p"), Credential("u", "p")),
        (basic("ü:p:q"), Credential("ü", "p:q")),
        ("basic " + basic("u:p")[6:], Credential("u", "p")),
    ],
)
def test_who_a_header_says_that_one_is(header: str | None, expected: Credential):
    assert read_authorization(header) == expected


@pytest.mark.parametrize("credential", [ANONYMOUS, Credential("ü", "p w"), Credential(identity_token="t" * 3000)])
def test_a_token_carries_the_credential(credential: Credential):
    assert read_authorization(f"Bearer {issue_token(credential)}") == credential


@pytest.mark.parametrize(
    "header", ["Basic !!!", basic("no colon"), "Basic /w==", "Bearer x", "Bearer ü", "Negotiate abc"]
)
def test_a_header_that_cannot_be_read_is_refused_without_repeating_it(header: str):
    with pytest.raises(CredentialsNeeded) as caught:
        read_authorization(header)
    assert header.partition(" ")[2] not in str(caught.value)


def test_the_forms_of_a_token_request():
    assert read_token_form({"grant_type": "password", "username": "u", "password": "p"}) == Credential("u", "p")
    assert read_token_form({"grant_type": "refresh_token", "refresh_token": "t"}) == Credential(identity_token="t")
    with pytest.raises(InvalidRequest):
        read_token_form({"grant_type": "client_credentials"})


def test_the_challenge_points_to_where_the_client_came():
    text = str(make_challenge("http", "proxy.test:5000", "repository:a/b:pull"))
    assert text == (
        'Bearer realm="http://proxy.test:5000/_crossdock/v1/token",service="crossdock",scope="repository:a/b:pull"'
    )
    assert "scope" not in str(make_challenge("https", "[::1]:5000"))
    for host in ('a"b', "", "a/b", "user@host"):
        with pytest.raises(InvalidRequest):
            make_challenge("http", host)
