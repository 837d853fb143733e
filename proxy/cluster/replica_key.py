"""What replicas of one cluster know of each other: a key in their common store, and what it signs and seals (pure).

It seals the names of uploads, in which a replica says where it can be reached, and signs what replicas ask of each
other and answer. Nobody else can make any of it, or read a name: an upload's name leads nowhere but to a replica.
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
        """The name of an upload under way at the replica ``owner`` (its URL): letters, digits, ``-`` and ``_``.

        It says nothing to who has not the key: a synthetic IV (as in RFC 5297, by HMAC), and both texts under the
        stream that SHAKE256 makes of that. ``upload`` is random, so no two names are alike.
        """
        plain = f"{upload} {owner}".encode()
        tag = self._tag("upload", plain)
        return _text(tag + self._under_stream(tag, plain))

    def upload_owner(self, name: str) -> str | None:
        """The replica that an upload is under way at; None when the name is no replica's work."""
        try:
            content = _bytes(name)
        except ValueError:
            return None
        tag = content[:_TAG_BYTES]
        plain = self._under_stream(tag, content[_TAG_BYTES:])
        if not hmac.compare_digest(tag, self._tag("upload", plain)):
            return None
        return plain.decode().partition(" ")[2]

    def sign(self, method: str, target: str, now_s: float) -> str:
        """The header that a replica sends with a request for ``target`` (path and query)."""
        at_s = str(int(now_s))
        return f"{at_s}.{_text(self._request_tag(method, target, at_s))}"

    def accepts(self, signature: str, method: str, target: str, now_s: float) -> bool:
        """Whether a replica has lately signed this request."""
        at_s, _, tag = signature.partition(".")
        try:
            right = hmac.compare_digest(_bytes(tag), self._request_tag(method, target, at_s))
            return right and abs(now_s - int(at_s)) <= SIGNATURE_LIFE_S
        except ValueError:
            return False

    def sign_reply(self, signature: str) -> str:
        """The header with which a replica answers a request that had ``signature`` in its own."""
        return _text(self._tag("reply", signature.encode()))

    def _request_tag(self, *parts: str) -> bytes:
        return self._tag("request", *(part.encode() for part in parts))

    def _tag(self, purpose: str, *parts: bytes) -> bytes:
        framed = (len(part).to_bytes(4, "big") + part for part in (purpose.encode(), *parts))
        return hmac.digest(self.secret, b"".join(framed), hashlib.sha256)[:_TAG_BYTES]

    def _under_stream(self, tag: bytes, data: bytes) -> bytes:
        key = hmac.digest(self.secret, b"stream", hashlib.sha256)
        stream = hashlib.shake_256(key + tag).digest(len(data))
        return bytes(one ^ other for one, other in zip(data, stream, strict=True))


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
