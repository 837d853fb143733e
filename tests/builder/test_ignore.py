"""``.dockerignore``: tables of what moby's matcher documents, and a slow reference that knows no regular expression."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.contexts.ignore import IgnoreRules
from builder.errors import ContextError


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        # one pattern, as in moby's documentation and Go's filepath.Match
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("a", "ab", False),
        ("/a", "a", True),
        ("/a/b", "a/b", True),
        ("a/", "a", True),
        ("a/", "a/b", True),
        ("./a", "a", True),
        ("a//b/./c/..", "a/b", True),
        ("  a  ", "a", True),
        (".", "a", False),
        ("/", "a", False),
        ("../a", "a", False),
        ("*", "a", True),
        ("*", "a/b", True),
        ("*.go", "a.go", True),
        ("*.go", "b/a.go", False),
        ("*/*.go", "b/a.go", True),
        ("*/*.go", "c/b/a.go", False),
        ("a*", "abc", True),
        ("a*", "a/b", True),
        ("a*c", "ab/c", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("?", "ab", False),
        ("**", "a/b/c", True),
        ("**/", "a", True),
        ("**/a", "a", True),
        ("**/a", "x/y/a", True),
        ("**/a", "x/ya", False),
        ("**/a", "x/a/y", True),
        ("**/*.go", "a.go", True),
        ("**/*.go", "x/y/a.go", True),
        ("**/a/*.go", "x/a/b.go", True),
        ("a/**", "a", False),
        ("a/**", "a/b/c", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("**.go", "x/a.go", True),
        ("**.go", ".go", True),
        ("a**b", "ab", True),
        ("a**b", "axb", False),
        ("a**b", "ax/b", True),
        ("**a*", "xab", False),
        ("[ab]", "b", True),
        ("[ab]", "c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[!a]", "!", True),
        ("[c-a]", "b", False),
        ("[^c-a]", "b", True),
        (r"[\]\-a]", "-", True),
        ("[[a]", "[", True),
        ("a]", "a]", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"a\b", "ab", True),
        ("a.b", "axb", False),
        ("a+(b)|{c}$^", "a+(b)|{c}$^", True),
        ("^a*", "^ab", True),
        ("ä?", "äö", True),
        ("a b", "a b", True),
    ],
)
def test_one_pattern(pattern, path, excluded):
    assert IgnoreRules.parse(pattern).excludes(path) is excluded


@pytest.mark.parametrize(
    ("lines", "path", "excluded"),
    [
        (["*", "!a"], "a", False),
        (["*", "!a"], "b", True),
        (["!a", "*"], "a", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
        (["a", "!a/b"], "a/b/c", False),
        (["a", "!a/b"], "a/c", True),
        (["a", "!a/b", "a/b/c"], "a/b/c/d", True),
        (["a/*", "!a/b"], "a", False),
        (["**", "!**/*.go"], "x/y.go", False),
        (["**", "!**/*.go"], "x/y.c", True),
        (["! a", "b", "!  b"], "b", False),
        (["*", "!a/b", "a"], "a/b", True),
        (["# a", "#a"], "#a", False),
        ([" #a"], "#a", True),
        (["", "   "], "a", False),
        (["\ufeffa"], "a", True),
        (["a\r", "!a/b\r"], "a/b", False),
    ],
)
def test_the_last_pattern_that_holds_decides(lines, path, excluded):
    assert IgnoreRules.parse("\n".join(lines)).excludes(path) is excluded


@pytest.mark.parametrize(
    ("lines", "path", "descend"),
    [
        (["a"], "a", False),
        (["a"], "b", True),
        (["a", "!a/b"], "a", True),
        (["a", "!a/b"], "a/c", False),
        (["a", "!a/b"], "a/b", True),
        (["a", "!b"], "a", False),
        (["!a/b", "a"], "a", False),
        (["a", "!a"], "a", True),
        (["a", "!**/x"], "a/b/c", True),
        (["a", "!*/x"], "a", True),
        (["a", "!*/x"], "a/b", False),
        (["a", "!?/b/c"], "a/b", True),
        (["a", "!?/c/c"], "a/b", False),
        (["a", "![^b]/c"], "a", True),
        (["*"], "", True),
    ],
)
def test_only_what_cannot_come_back_is_skipped(lines, path, descend):
    assert IgnoreRules.parse("\n".join(lines)).may_descend(path) is descend


def test_the_root_is_never_left_out():
    assert not IgnoreRules.parse("**").excludes("")


def test_no_rules_exclude_nothing():
    rules = IgnoreRules.parse("")

    assert not rules.excludes("a")
    assert rules.may_descend("a")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("!", "nothing behind the !"),
        ("a[", "not closed"),
        ("[a", "not closed"),
        ("[]", "misplaced ']'"),
        ("[]a]", "misplaced ']'"),
        ("[a-]", "misplaced ']'"),
        ("[-a]", "misplaced '-'"),
        ("[\\", "not closed"),
        ("a\\", "backslash at the end"),
    ],
)
def test_a_malformed_pattern_is_told_with_its_line(line, reason):
    with pytest.raises(ContextError, match=reason) as caught:
        IgnoreRules.parse(f"# fine\nok\n{line}\n")

    assert str(caught.value.span).startswith(f".dockerignore:3\n  3 | {line}")


def test_a_deep_path_is_no_problem():
    assert IgnoreRules.parse("**/z").excludes("a/" * 3000 + "z")


def naive_match(pattern, path):
    """True when ``pattern`` (names with ``*``, ``?``; ``**`` alone between slashes) matches the whole of ``path``."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return any(naive_match(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and naive_name(pattern[0], path[0]) and naive_match(pattern[1:], path[1:])


def naive_name(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(naive_name(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and naive_name(pattern[1:], name[1:])


def naive_excludes(rules, path):
    names = path.split("/")
    excluded = False
    for exception, pattern in rules:
        if any(naive_match(pattern, names[:length]) for length in range(1, len(names) + 1)):
            excluded = not exception
    return excluded


NAMES = st.text("ab", min_size=1, max_size=2)
PATTERN_NAMES = st.one_of(NAMES, st.sampled_from(["*", "?", "a*", "*b", "?b", "**"]))
PATTERNS = st.tuples(st.booleans(), st.lists(PATTERN_NAMES, min_size=1, max_size=3))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=500)
@given(st.lists(PATTERNS, max_size=5), st.lists(PATHS, max_size=8))
def test_like_a_naive_matcher_in_any_order_of_questions(rules, paths):
    text = "\n".join("!" * exception + "/".join(pattern) for exception, pattern in rules)
    ignore = IgnoreRules.parse(text)

    for path in paths:
        expected = naive_excludes(rules, path)
        assert ignore.excludes(path) is expected
        if not expected:
            parents = [path[:index] for index, char in enumerate(path) if char == "/"]
            assert all(ignore.may_descend(parent) for parent in parents)


@settings(max_examples=300)
@given(st.text(alphabet="ab/*?[]^-\\!.# \n\r\t{(|$"), PATHS)
def test_any_text_is_understood_or_refused(text, path):
    try:
        rules = IgnoreRules.parse(text)
    except ContextError as error:
        reason = error.message
    else:
        reason = "understood" if isinstance(rules.excludes(path), bool) else ""

    assert reason
