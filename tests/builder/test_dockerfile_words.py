"""How arguments and flags are cut into words."""

import pytest

from builder.dockerfile.words import NotStrings, blank_separated, json_strings, quoted_words, read_flags


def test_blanks_separate_and_quotes_mean_nothing():
    words = blank_separated('RUN  "a b"\tc', 3)

    assert [(word.text, word.start, word.stop) for word in words] == [('"a', 5, 7), ('b"', 8, 10), ("c", 11, 12)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\"e", ["'a b'", '"c d"e']),
        (r"a\ b c", [r"a\ b", "c"]),
        (r'"a\" b" c', [r'"a\" b"', "c"]),
        (r"'a\' b", [r"'a\'", "b"]),
        ("'a b", ["'a b"]),
        ("a b\\", ["a", "b"]),
        ("a \\", ["a"]),
        ("a\\\\", ["a\\\\"]),
    ],
)
def test_quotes_and_escapes_hold_words_together(text, words):
    assert [word.text for word in quoted_words(text, 0, "\\")] == words


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        (" a b", [], "a b"),
        ("", [], ""),
        ("--a=b  c", [("a", "b")], "c"),
        ("--a --b= c --d", [("a", None), ("b", "")], "c --d"),
        ("--a=b", [("a", "b")], ""),
        ("--a=\"b c\"'d e' f", [("a", "b cd e")], "f"),
        (r"--a=b\ c d", [("a", "b c")], "d"),
        (r"--a='b\' c' d", [("a", "b' c")], "d"),
        (r"""--a="b'c" d""", [("a", "b'c")], "d"),
        ("--a=b -- --c", [("a", "b")], "--c"),
        ("-a", [], "-a"),
    ],
)
def test_flags_come_before_the_arguments(text, flags, rest):
    found, start = read_flags(text, 0)

    assert [(flag.name, flag.value) for flag in found] == flags
    assert text[start:] == rest


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ('["a"]', ("a",)),
        (" []", ()),
        ("a", None),
        ("[", None),
        ('["a",]', None),
        ("[" * 100_000, None),
    ],
)
def test_json_arrays(text, strings):
    assert json_strings(text) == strings


@pytest.mark.parametrize("text", ['["a", null]', "[1]", "[[]]"])
def test_json_arrays_of_other_things_are_refused(text):
    with pytest.raises(NotStrings, match="strings only"):
        json_strings(text)
