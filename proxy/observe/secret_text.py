"""Masks what looks like a secret in a text that is to be logged.

Nothing of ours is meant to put one there; this is for what others say: an upstream's message, a library's error. What
follows ``Basic`` and ``Bearer``, what a URL carries as user, password and query, and what stands under a name like
``password`` or ``token`` is replaced by ``***``.
"""

from __future__ import annotations

import re

MASK = "***"
_NAME = r"(?:passw|secret|token|authorization|credential|signature|api[_-]?key)[\w.-]*"
_VALUE = r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|\\+"(?:(?!\\").)*\\+"|\[[^\]]*\]|[^\s"\']+'
_NAMED = re.compile(rf"({_NAME}\\*[\"']?\s*[=:]\s*)(?:{_VALUE})", re.IGNORECASE)
_SCHEME = re.compile(r"\b(basic|bearer)\s+[^\s\"',]+", re.IGNORECASE)
_USER = re.compile(r"://[^\s\"'<>]*@")  # up to the last @: passwords hold slashes, though they should not
_QUERY = re.compile(r"\?[^\s\"'<>]+")
_SECRET_KEY = re.compile(_NAME, re.IGNORECASE)


def mask_secrets(text: str) -> str:
    """The text without what looks like a secret."""
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _USER.sub(f"://{MASK}@", text)
    text = _QUERY.sub(f"?{MASK}", text)
    return _NAMED.sub(rf"\1{MASK}", text)


def names_secret(key: str) -> bool:
    """True when a field of this name is one whose text nobody should see."""
    return _SECRET_KEY.search(key) is not None
