"""USER and --chown by an image's passwd and group files."""

import pytest

from builder.execution.image_users import User, resolve_owner, resolve_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment

broken
bad:x:one:1::/:/bin/sh
app:x:1000:1001:App,,,:/home/app:/bin/sh
1000:x:7:8::/seven:
bare:x:9:9
homeless:x:11:11:::
"""
GROUP = """\
root:x:0:
staff:x:50:app, other,root
wheel:x:10:root,app
short:x:12
1001:x:77:
app:x:1001:app
broken
bad:x:no:app
"""


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (50, 10), "/root")),
        ("root", User(0, 0, (50, 10), "/root")),
        ("0", User(0, 0, (50, 10), "/root")),
        ("app", User(1000, 1001, (50, 10, 1001), "/home/app")),
        ("app:", User(1000, 1001, (50, 10, 1001), "/home/app")),
        ("app:staff", User(1000, 50, (), "/home/app")),
        ("app:1001", User(1000, 77, (), "/home/app")),
        ("app:4242", User(1000, 4242, (), "/home/app")),
        ("9", User(9, 9, (), "/")),
        ("bare:short", User(9, 12, (), "/")),
        ("homeless", User(11, 11, (), "/")),
        ("1000", User(7, 8, (), "/seven")),
        ("4242", User(4242, 0, (), "/")),
        ("4242:4243", User(4242, 4243, (), "/")),
        (":staff", User(0, 50, (), "/root")),
    ],
)
def test_resolve_user(text, user):
    assert resolve_user(text, PASSWD, GROUP) == user


def test_without_files_only_numbers_are_known():
    assert resolve_user("", "", "") == User(0, 0, (), "/")
    assert resolve_user("5:6", "", "") == User(5, 6, (), "/")
    with pytest.raises(ValueError, match="no user 'app' in the image's /etc/passwd"):
        resolve_user("app", "", "")


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("55", (55, 55)),
        ("1000", (1000, 1000)),
        ("app", (1000, 1001)),
        ("app:staff", (1000, 50)),
        ("55:staff", (55, 50)),
        ("55:", (55, 55)),
        ("55:66", (55, 66)),
        (":66", (0, 66)),
        ("root", (0, 0)),
    ],
)
def test_resolve_owner(text, owner):
    assert resolve_owner(text, PASSWD, GROUP) == owner


def test_root_needs_no_files():
    assert resolve_owner("root:0", "", "") == (0, 0)
    assert resolve_user("root:root", "", "") == User(0, 0, (), "/")


@pytest.mark.parametrize("resolve", [resolve_user, resolve_owner])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "no user 'nobody' in the image's /etc/passwd"),
        ("app:nogroup", "no group 'nogroup' in the image's /etc/group"),
        ("-1", "no user '-1'"),
        ("1.5", "no user '1.5'"),
        ("²", "no user '²'"),
        ("4294967295", "user 4294967295 is out of range"),
        ("0:4294967295", "group 4294967295 is out of range"),
        ("9" * 30, "no user '999"),
    ],
)
def test_what_cannot_be_resolved(resolve, text, message):
    with pytest.raises(ValueError, match=message):
        resolve(text, PASSWD, GROUP)
