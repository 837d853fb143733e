"""The endpoints that list: tags, referrers, repositories (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from cache import paths
from cache.oci import media_types
from cache.oci.discovery import FILTERS_HEADER
from cache.oci.manifest import make_index
from proxy.auth.caller import Caller
from proxy.auth.rights import Right
from proxy.requests.call import API_HEADERS, Call
from proxy.requests.outcome import BYPASS, HIT
from proxy.requests.request import ListReferrers, ListRepositories, ListTags
from proxy.requests.routing import Hosted
from proxy.services import Services
from proxy.upstream.tags import cut_page

MAX_REPOSITORIES = 1000
"""The longest page of repositories."""


async def list_tags(services: Services, call: Call, request: ListTags) -> web.Response:
    """The tags in order, a page of them where ``n`` asks for one."""
    if isinstance(call.route, Hosted):
        tags = cut_page(await services.hosted.tags(call.route), request.count, request.last)
    else:
        tags = await services.tags.page(call.route, request, call.caller)
    link = call.next_page("tags/list", tags.following) if tags.following is not None else {}
    outcome = HIT if isinstance(call.route, Hosted) else BYPASS
    return _json({"name": call.name, "tags": tags.names}, call.headers(outcome, None, link))


async def list_referrers(services: Services, call: Call, request: ListReferrers) -> web.Response:
    """An index of what refers to a manifest, which need not be there; a page of it where that would be long."""
    page = await services.referrers.page(call.route, request, call.caller)
    more = {"Content-Type": media_types.OCI_INDEX}
    filtered = {"artifactType": request.artifact_type} if request.artifact_type else {}
    if filtered:
        more[FILTERS_HEADER] = "artifactType"
    if page.more:
        last = {"last": str(page.manifests[-1].digest)}
        more |= call.next_page(f"referrers/{request.subject}", filtered | last)
    return web.Response(body=make_index(page.manifests).raw, headers=call.headers(page.outcome, None, more))


async def list_repositories(services: Services, caller: Caller, request: ListRepositories) -> web.Response:
    """The hosted repositories that this caller may read."""
    allow = services.config.rules.allow
    known = await services.catalog.repositories(paths.HOSTED)
    readable = [name for name in known if allow(caller.who, name, Right.READ)]
    count = MAX_REPOSITORIES if request.count is None else min(request.count, MAX_REPOSITORIES)
    page = cut_page(readable, count, request.last)
    link = {"Link": f'</v2/_catalog?{urlencode(page.following)}>; rel="next"'} if page.following is not None else {}
    return _json({"repositories": page.names}, {**API_HEADERS, **HIT.headers, **link})


def _json(body: object, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", headers=headers)
