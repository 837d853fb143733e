"""Local users: what their files may hold, and how passwords and tokens are checked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import bcrypt
import pytest

from proxy.auth.users import RIGHT_TTL_S, WRONG_TTL_S, Users
from proxy.errors import ConfigError

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
TOKEN = "0123456789abcdef"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hashes_checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that a password was compared with."""
    seen: list[bytes] = []
    real = bcrypt.checkpw

    def count(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", count)
    return seen


def load(tmp_path: Path, users: str | None, tokens: str | None) -> Users:
    """Users of files with these texts."""
    paths: list[Path | None] = []
    for name, text in (("users", users), ("tokens", tokens)):
        paths.append(None if text is None else tmp_path / name)
        if text is not None:
            (tmp_path / name).write_text(text)
    return Users.load(*paths)


async def test_the_files_say_who_is_known(tmp_path: Path):
    users = load(tmp_path, f"# people\n\nann:{HASH}\n", f"ci:{TOKEN}\nci:{TOKEN}:2\nann:{TOKEN}3\n")
    assert len(users) == 2
    assert "ann" in users
    assert "ci" in users
    assert "bob" not in users
    assert await users.check("ann", "right")
    assert await users.check("ann", f"{TOKEN}3")
    assert await users.check("ci", f"{TOKEN}:2")
    assert not await users.check("ci", f"{TOKEN}3")
    assert not await users.check("ann", "wrong")
    assert not await users.check("ci", "")
    assert (users.holder(TOKEN), users.holder(f"{TOKEN}3"), users.holder("right")) == ("ci", "ann", None)


async def test_without_files_nobody_is_known():
    users = Users.load(None, None)
    assert len(users) == 0
    assert not await users.check("ann", "right")
    assert not await users.check("", "")


def test_every_fault_is_named_by_its_line_and_no_secret_is(tmp_path: Path):
    secrets = ["{SHA}c2VjcmV0", "$apr1$secret", HASH.replace("$04$", "$17$"), "short-secret", "has a secret space"]
    users = f"ann:{HASH}\nbob:{secrets[0]}\ncy:{secrets[1]}\nann:{HASH}\ndi:{secrets[2]}\nno colon\nguest:{HASH}\n"
    tokens = f"ci:{TOKEN}\nci:{secrets[3]}\nbad name:{TOKEN}\nci:{secrets[4]}\nbob:{TOKEN}\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, users, tokens)
    lines = [problem.partition(": ")[0] for problem in caught.value.problems]
    assert lines == [
        *(f"{tmp_path}/users line {number}" for number in (2, 3, 4, 5, 6, 7)),
        *(f"{tmp_path}/tokens line {number}" for number in (2, 3, 4, 5)),
    ]
    said = str(caught.value)
    assert not [secret for secret in (*secrets, HASH, TOKEN, "no colon") if secret in said]


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    (tmp_path / "tokens").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as caught:
        Users.load(tmp_path / "none", tmp_path / "tokens")
    assert len(caught.value.problems) == 2


async def test_an_outcome_is_remembered_for_a_while_a_wrong_one_shorter(tmp_path: Path, hashes_checked: list[bytes]):
    clock = Clock()
    users = Users({"ann": HASH}, clock=clock)

    async def checks(password: str) -> int:
        before = len(hashes_checked)
        assert await users.check("ann", password) == (password == "right")
        return len(hashes_checked) - before

    assert [await checks("right"), await checks("wrong")] == [1, 1]
    assert [await checks("right"), await checks("wrong")] == [0, 0]
    clock.now += WRONG_TTL_S
    assert [await checks("right"), await checks("wrong")] == [0, 1]
    clock.now += RIGHT_TTL_S
    assert await checks("right") == 1


async def test_many_requests_at_once_cost_one_check(hashes_checked: list[bytes]):
    users = Users({"ann": HASH})
    assert all(await asyncio.gather(*(users.check("ann", "right") for _ in range(20))))
    assert len(hashes_checked) == 1


async def test_a_name_that_is_unknown_costs_what_the_dearest_known_one_costs(hashes_checked: list[bytes]):
    dear = HASH.replace("$04$", "$05$")
    users = Users({"ann": HASH, "bob": dear}, {TOKEN: "ci"})
    for name in ("nobody", "ci"):
        assert not await users.check(name, "wrong")
        assert hashes_checked[-1][:7] == b"$2b$05$"


async def test_what_bcrypt_does_not_look_at_does_not_count():
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    users = Users({"ann": hashed})
    assert await users.check("ann", "x" * 80)
    assert not await users.check("ann", "x" * 71)


async def test_name_and_password_are_not_mixed_up():
    users = Users({"ann": HASH, "an": HASH})
    assert await users.check("ann", "right")
    assert not await users.check("an", "nright")
