"""TLS as aiohttp has it on this Python."""

from __future__ import annotations

import sys

ABORTS_WHAT_IS_CLOSED = sys.version_info < (3, 12, 8) or (3, 13, 0) <= sys.version_info < (3, 13, 1)
"""For ``enable_cleanup_closed`` of an ``aiohttp.TCPConnector``.

A connection that is given up says so to the server by TLS, and waits for the answer. These versions of asyncio may wait
for ever (https://github.com/python/cpython/issues/118950), and nobody waits with them when the program ends: so such a
connection is aborted after two seconds, or when the connector is closed. aiohttp warns where there is no need.
"""
