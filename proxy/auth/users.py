"""The proxy's own users: passwords in an htpasswd file (bcrypt), and static tokens in a file of ``NAME:TOKEN`` lines.

A password is checked in a thread, a few at once, and the outcome is remembered for a short time under a keyed hash, so
that a client's every request does not cost what bcrypt costs. A name that is not in the file costs the same.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

import bcrypt
from cachetools import TTLCache

from cache.singleflight import SingleFlight
from proxy.auth.rights import GUEST, NOBODY_KNOWN, USER_NAME
from proxy.errors import ConfigError

CHECKS_AT_ONCE = 2
RIGHT_TTL_S = 60.0
WRONG_TTL_S = 5.0
MAX_REMEMBERED = 10_000
MIN_TOKEN_CHARACTERS = 16
PASSWORD_BYTES = 72
"""bcrypt looks at no more of a password; htpasswd cuts longer ones."""
_BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")
"""Costs above 16 would keep a thread busy for many seconds for each check."""
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Users:
    """Who is known here. ``hashes`` are bcrypt's by user name, ``holders`` users' names by static token."""

    def __init__(
        self,
        hashes: Mapping[str, str] | None = None,
        holders: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secret = secrets.token_bytes(32)
        self._hashes = {name: hashed.encode() for name, hashed in (hashes or {}).items()}
        self._nobodys_hash = _nobodys_hash(self._hashes.values())
        # Found by a hash that nobody outside can compute: how long that takes says nothing about a token.
        self._holders = {self._mac("", token): name for token, name in (holders or {}).items()}
        self._names = {*self._hashes, *self._holders.values()}
        self._right: TTLCache[bytes, None] = TTLCache(MAX_REMEMBERED, RIGHT_TTL_S, timer=clock)
        self._wrong: TTLCache[bytes, None] = TTLCache(MAX_REMEMBERED, WRONG_TTL_S, timer=clock)
        self._checks: SingleFlight[bytes, bool] = SingleFlight()
        self._slots = asyncio.Semaphore(CHECKS_AT_ONCE)

    @classmethod
    def load(cls, users_file: Path | None, tokens_file: Path | None) -> Users:
        """The users in the files. Raises ConfigError, with every fault by its line and never a hash or a token."""
        problems: list[str] = []
        hashes = parse_htpasswd(_read(users_file, problems), str(users_file), problems)
        holders = parse_tokens(_read(tokens_file, problems), str(tokens_file), problems)
        if problems:
            raise ConfigError(problems)
        return cls(hashes, holders)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        """True when somebody here has this name."""
        return name in self._names

    def holder(self, token: str) -> str | None:
        """Whose static token this is; None when it is nobody's."""
        return self._holders.get(self._mac("", token)) if self._holders else None

    async def check(self, name: str, password: str) -> bool:
        """True when that is the user's password, or a token of theirs. Takes as long for a name that is unknown."""
        if name and self.holder(password) == name:
            return True
        mac = self._mac(name, password)
        if mac in self._right or mac in self._wrong:
            return mac in self._right
        return await self._checks.run(mac, lambda: self._check(mac, name, password))

    async def _check(self, mac: bytes, name: str, password: str) -> bool:
        hashed = self._hashes.get(name, self._nobodys_hash)
        async with self._slots:
            matches = await asyncio.to_thread(bcrypt.checkpw, password.encode()[:PASSWORD_BYTES], hashed)
        right = matches and name in self._hashes
        (self._right if right else self._wrong)[mac] = None
        return right

    def _mac(self, name: str, secret: str) -> bytes:
        keyed = blake2b(len(name).to_bytes(4), key=self._secret, digest_size=32)
        keyed.update(name.encode(errors="surrogatepass"))
        keyed.update(secret.encode(errors="surrogatepass"))
        return keyed.digest()


def parse_htpasswd(text: str, where: str, problems: list[str]) -> dict[str, str]:
    """bcrypt hashes by user name; what is wrong with a line goes to ``problems``."""
    hashes: dict[str, str] = {}
    for place, name, hashed in _entries(text, where, problems):
        if not _BCRYPT.fullmatch(hashed):
            problems.append(f"{place}: the hash of user {name!r} is not bcrypt of cost 4 to 16: expected htpasswd -B")
        elif name in hashes:
            problems.append(f"{place}: user {name!r} is there twice")
        else:
            hashes[name] = hashed
    return hashes


def parse_tokens(text: str, where: str, problems: list[str]) -> dict[str, str]:
    """Users' names by token, any number for each user; what is wrong with a line goes to ``problems``."""
    holders: dict[str, str] = {}
    for place, name, token in _entries(text, where, problems):
        if len(token) < MIN_TOKEN_CHARACTERS or not _TOKEN.fullmatch(token):
            problems.append(
                f"{place}: the token of user {name!r}: expected at least {MIN_TOKEN_CHARACTERS} printable characters"
            )
        elif token in holders:
            problems.append(f"{place}: the token of user {name!r} is there twice")
        else:
            holders[token] = name
    return holders


def _entries(text: str, where: str, problems: list[str]) -> Iterator[tuple[str, str, str]]:
    """Where a line stands, its name and the rest of it; empty lines and comments are left out."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{where} line {number}"
        name, colon, rest = line.strip().partition(":")
        if not colon or not USER_NAME.fullmatch(name):
            problems.append(f"{place}: expected a user's name and a colon, then what belongs to it")
        elif name in (NOBODY_KNOWN, GUEST):
            problems.append(f"{place}: {name!r} can be no user's name, it has a meaning in rules")
        else:
            yield place, name, rest


def _read(path: Path | None, problems: list[str]) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(f"{path} cannot be read: {reason}")
        return ""


def _nobodys_hash(hashes: Iterable[bytes]) -> bytes:
    """A hash that no password is known for, of the highest cost among ``hashes``."""
    cost = max((int(hashed[4:6]) for hashed in hashes), default=4)
    return f"$2b${cost:02}${'.' * 53}".encode()
