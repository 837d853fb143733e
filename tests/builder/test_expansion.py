"""Variables, quotes and escapes, by the tables of the Dockerfile reference and POSIX's parameter expansion."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile import glob
from builder.dockerfile.expansion import expand, expand_words
from builder.dockerfile.instructions import Word
from builder.errors import DockerfileError, Span

ENV = {
    "PERSON": "me",
    "EMPTY": "",
    "LIST": "one  two\tthree",
    "FILE": "archive.tar.gz",
    "PATH": "/usr/local/bin",
    "STAR": "a*b",
    "LINES": "a\nb",
    "ß": "sharp",
    "1": "first",
}


def word(text):
    return Word(text, Span("Dockerfile", 1, f"RUN {text}", 4, 4 + len(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("$PERSON", "me"),
        ("${PERSON}", "me"),
        ("a$PERSON-b", "ame-b"),
        ("${PERSON}x$PERSONx", "mex"),
        ("$MISSING|${MISSING}", "|"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$.", "$."),
        ("$$ $@", " "),
        ("$1 $12", "first "),
        ("$ß", "sharp"),
        # quotes and escapes
        (r"\$PERSON", "$PERSON"),
        (r"\a\\\"", 'a\\"'),
        ("a\\", "a"),
        ("'$PERSON \\'", "$PERSON \\"),
        ("\"$PERSON 'x'\"", "me 'x'"),
        (r'"\$PERSON \" \\ \a"', '$PERSON " \\ \\a'),
        (r'${FILE#"arch\ive."}', "archive.tar.gz"),
        (r'${STAR%"\*b"}', "a*b"),
        ("he\"ll\"o' 'world", "hello world"),
        # conditions
        ("${PERSON:-d}${EMPTY:-d}${MISSING:-d}", "medd"),
        ("${PERSON-d}${EMPTY-d}${MISSING-d}", "med"),
        ("${PERSON:+a}${EMPTY:+a}${MISSING:+a}", "a"),
        ("${PERSON+a}${EMPTY+a}${MISSING+a}", "aa"),
        ("${PERSON:?m}${PERSON?m}${EMPTY?m}", "meme"),
        ("${MISSING:-${EMPTY:-$PERSON}}", "me"),
        ("${MISSING:-'}'\\}}", "}}"),
        ('"${MISSING:-a b}"', "a b"),
        ("${MISSING:-}", ""),
        # patterns
        ("${FILE%.*}", "archive.tar"),
        ("${FILE%%.*}", "archive"),
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE#x}${FILE%x}", "archive.tar.gz" * 2),
        ("${FILE#arch????.}", "archive.tar.gz"),
        ("${FILE#arch???.}", "tar.gz"),
        ("${PATH##*/}", "bin"),
        ("${PATH%/*}", "/usr/local"),
        (r"${STAR#a\*}", "b"),
        (r"${STAR%\*b}", "a"),
        ("${FILE%$MISSING}", "archive.tar.gz"),
        ("${FILE#[a]}", "archive.tar.gz"),
        ("${LINES#*b}", "a\nb"),
        (r"${PATH/\//-}", "-usr/local/bin"),
        (r"${PATH//\//-}", "-usr-local-bin"),
        ("${FILE/a/A}", "Archive.tar.gz"),
        ("${FILE//a/A}", "Archive.tAr.gz"),
        ("${FILE/.*/}", "archive"),
        ("${FILE//?/x}", "x" * 14),
        ("${FILE//*/x}${EMPTY//*/x}", "xx"),
        ("${FILE/none/x}", "archive.tar.gz"),
        ("${MISSING/a/b}", ""),
        ("${FILE/archive/$PERSON}", "me.tar.gz"),
    ],
)
def test_expand(text, expected):
    assert expand(word(text), ENV) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("`$PERSON \\n `a", "$PERSON \\n a"), ('"`" \\"', '" \\'), ("${MISSING:-`}}", "}")],
)
def test_expand_with_the_back_quote_as_escape(text, expected):
    assert expand(word(text), ENV, "`") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a", ("a",)),
        (" a  b\t", ("a", "b")),
        ("$LIST", ("one", "two", "three")),
        ("x$LIST", ("xone", "two", "three")),
        ('"$LIST"', ("one  two\tthree",)),
        ("'a b'c d", ("a bc", "d")),
        (r"a\ b c", ("a b", "c")),
        ("''", ()),
        ("$MISSING a", ("a",)),
        ("${MISSING:-a b}", ("a", "b")),
    ],
)
def test_expand_words(text, expected):
    assert expand_words(word(text), ENV) == expected


@pytest.mark.parametrize(
    ("text", "message", "start"),
    [
        ("ab${PERSON", "missing '}'", 2),
        ("${", "missing '}'", 0),
        ("${PERSON:", "missing '}'", 0),
        ("${PERSON:-a", "missing '}'", 10),
        ("${}", "bad substitution", 0),
        ("${{PERSON}}", "bad substitution", 0),
        ("${:-a}", "bad substitution", 0),
        ("${PERSON!a}", "unsupported modifier '!'", 0),
        ("${PERSON:a}", "unsupported modifier ':a'", 0),
        ("${PERSON,,}", "unsupported modifier ','", 0),
        ("${PERSON/a}", "missing '/'", 9),
        ("${PERSON/a/b", "missing '}'", 11),
        ("a'b", "missing the closing single quote", 1),
        ('a"b', "missing the closing double quote", 1),
        ('"b\\', "missing the closing double quote", 0),
        ("${MISSING:?say it}", "MISSING: say it", 0),
        ("${EMPTY:?}", "EMPTY: must be set and not empty", 0),
        ("${MISSING?}", "MISSING: must be set", 0),
        (r"${PERSON#\a}", r"invalid escape '\\a'", 0),
        (r"${PERSON/\a/}", r"invalid escape '\\a'", 0),
        ("${A:-" * 60 + "}" * 60, "nested too deeply", 200),
    ],
)
def test_faults_are_told_with_their_place(text, message, start):
    with pytest.raises(DockerfileError, match=message) as caught:
        expand(word(text), ENV)

    assert caught.value.span.start == 4 + start


def test_a_word_that_is_not_in_its_line_as_it_stands_is_marked_whole():
    span = Span("Dockerfile", 1, 'COPY --chown="${" a b', 5, 17)

    with pytest.raises(DockerfileError) as caught:
        expand(Word("${", span), {})

    assert caught.value.span == span


TEXTS = st.one_of(st.text(), st.text(alphabet="${}:-+?#%/*\\'\"` aA_1"))


@settings(max_examples=500)
@given(TEXTS, st.dictionaries(st.sampled_from(["A", "a", "aA"]), st.text()), st.sampled_from(["\\", "`"]))
def test_nothing_but_a_dockerfile_error_is_raised(text, env, escape):
    try:
        result = expand(word(text), env, escape)
    except DockerfileError:
        with pytest.raises(DockerfileError):
            expand_words(word(text), env, escape)
    else:
        assert "".join("".join(expand_words(word(text), env, escape)).split()) == "".join(result.split())


@given(st.text(alphabet="ab/.\n", max_size=8), st.text(alphabet="ab/*?", max_size=5))
def test_patterns_match_as_regular_expressions_do(value, pattern):
    def regex(star):
        return "".join({"*": star, "?": "."}.get(char) or re.escape(char) for char in pattern)

    shortest = re.match(regex(".*?"), value)
    longest = re.match(regex(".*"), value)
    ends = [value[:start] for start in range(len(value) + 1) if re.fullmatch(regex(".*"), value[start:])]

    assert glob.trim_prefix(value, pattern, longest=False) == (value[shortest.end() :] if shortest else value)
    assert glob.trim_prefix(value, pattern, longest=True) == (value[longest.end() :] if longest else value)
    assert glob.trim_suffix(value, pattern, longest=True) == (ends[0] if ends else value)
    assert glob.trim_suffix(value, pattern, longest=False) == (ends[-1] if ends else value)
    assert glob.replace(value, pattern, "-", everywhere=False) == re.sub(regex(".*"), "-", value, count=1)


def test_a_pattern_of_many_stars_takes_little_time():
    assert glob.trim_prefix("a" * 2000, "*a" * 30 + "b", longest=True) == "a" * 2000
