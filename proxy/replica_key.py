"""What replicas of one cluster know of each other: a key in their common store, and what it signs (pure).

It signs the names of uploads, in which a replica says where it can be reached, and the requests that replicas send to
each other. Nobody else can make either: an upload's name leads nowhere but to a replica.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

KEY_BYTES = 32
SIGNATURE_LIFE_S = 60
"""How far the clocks of two replicas, and the time on the way, may be apart."""
_TAG_BYTES = 18


@dataclass(frozen=True, slots=True)
class ReplicaKey:
    """The secret that the replicas share."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a replica key has {KEY_BYTES} bytes, got {len(self.secret)}")

    def upload_name(self, upload: str, owner: str) -> str:
        """The name of an upload under way at the replica ``owner`` (its URL), fit for a path."""
        place = _text(owner.encode())
        return f"{upload}.{place}.{_text(self._tag('upload', upload, place))}"

    def upload_owner(self, name: str) -> str | None:
        """The replica that an upload is under way at; None when the name is no replica's work."""
        upload, _, rest = name.partition(".")
        place, _, tag = rest.partition(".")
        try:
            right = hmac.compare_digest(_bytes(tag), self._tag("upload", upload, place))
            return _bytes(place).decode() if right else None
        except ValueError:
            return None

    def sign(self, method: str, target: str, now_s: float) -> str:
        """The header that a replica sends with a request for ``target`` (path and query)."""
        at_s = str(int(now_s))
        return f"{at_s}.{_text(self._tag('request', method, target, at_s))}"

    def accepts(self, signature: str, method: str, target: str, now_s: float) -> bool:
        """Whether a replica has lately signed this request."""
        at_s, _, tag = signature.partition(".")
        try:
            right = hmac.compare_digest(_bytes(tag), self._tag("request", method, target, at_s))
            return right and abs(now_s - int(at_s)) <= SIGNATURE_LIFE_S
        except ValueError:
            return False

    def _tag(self, *parts: str) -> bytes:
        message = b"".join(len(part).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.digest(self.secret, message, hashlib.sha256)[:_TAG_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises ValueError for what is no base64url in its one form."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if _text(data) != text:
        raise ValueError(f"{text!r} is not base64url")
    return data
