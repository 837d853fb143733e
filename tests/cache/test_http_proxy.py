"""Which requests go through an HTTP proxy."""

from __future__ import annotations

import pytest
from yarl import URL

from cache.oci.http_proxy import proxy_for

PROXY = "http://user:pw@proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("http://r.test/", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://r.test/", {"http_proxy": PROXY}, PROXY),
        ("http://r.test/", {"HTTP_PROXY": "proxy.test:3128"}, "http://proxy.test:3128"),
        ("https://r.test/", {"HTTP_PROXY": PROXY}, None),
        ("https://r.test/", {"HTTPS_PROXY": PROXY, "NO_PROXY": ""}, PROXY),
        ("http://localhost:5000/", {"HTTP_PROXY": PROXY}, None),
        ("http://[::1]:5000/", {"HTTP_PROXY": PROXY}, None),
        ("http://r.test/", {}, None),
    ],
)
def test_the_variable_of_the_scheme_counts_and_never_for_this_machine(url, environ, proxy):
    assert proxy_for(URL(url), environ) == proxy


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://r.test/", "other, R.test", True),
        ("http://a.r.test/", "r.test", True),
        ("http://a.r.test/", ".r.test", True),
        ("http://a.r.test/", "*.r.test", True),
        ("http://ar.test/", "r.test", False),
        ("http://r.test:5000/", "r.test:5000", True),
        ("http://r.test/", "r.test:5000", False),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://10.1.2.3/", "10.1.2.3", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://[fd00::1]/", "fd00::/8", True),
        ("http://r.test/", "*", True),
    ],
)
def test_what_no_proxy_names_is_reached_directly(url, no_proxy, direct):
    assert (proxy_for(URL(url), {"HTTP_PROXY": PROXY, "NO_PROXY": no_proxy}) is None) == direct
