"""How a client says that it can wait, so that a proxy leaves an upstream's rate limit to those who cannot."""

from __future__ import annotations

PRIORITY_HEADER = "Crossdock-Priority"
WARM_PRIORITY = "warm"
"""Its value: the content is fetched before anybody needs it."""
