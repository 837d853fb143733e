"""The images that are fetched before a build: of a Dockerfile's every corner, those that the build will ask for."""

from __future__ import annotations

import pytest

from builder.dockerfile.parser import parse
from builder.errors import BuildError
from builder.planning.named_images import named_images
from cache.oci.descriptor import Platform
from cache.oci.reference import Reference

AMD64, ARM64 = Platform(os="linux", architecture="amd64"), Platform(os="linux", architecture="arm64")


def named(name: str) -> tuple[Reference, Platform]:
    return Reference.parse(name), ARM64


def images_of(text: str, build_args: dict[str, str] | None = None, *platforms: Platform) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    dockerfile, known = parse(text.encode(), "Dockerfile"), {named("t"): ["COPY --from=of-t / /"]}
    for reference, platform in named_images(dockerfile, build_args or {}, platforms or (ARM64,), AMD64, known):
        name = str(reference).removeprefix("docker.io/library/").removesuffix(":latest")
        found.setdefault(name, []).append(platform.architecture)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # stages and their names
        ("from alpine:3 as base\nFROM base\nFROM Base AS two\nFROM two", "alpine:3"),
        ("FROM b\nFROM a AS b", "a b"),
        ("FROM a AS b\nFROM b\nCOPY --from=B / /", "a"),
        ("FROM a \\\n# c\n  AS b\n# FROM comment\nFROM c", "a c"),
        # COPY --from
        ("FROM scratch\nCOPY --from=busybox:1 /bin /bin", "busybox:1"),
        ("FROM a AS x\nFROM b\nCOPY --from=x / /\nCOPY --from=0 / /\nCOPY --chown=1 --from=c / /", "a b c"),
        ("FROM a\nCOPY x --from=b /", "a"),
        # RUN --mount
        ("FROM a\nRUN --mount=type=bind,from=b:1,target=/t --mount=type=cache,target=/c,from=c t", "a b:1 c"),
        ('FROM a\nRUN --mount="type=bind,from=b,target=/t" t', "a b"),
        ("FROM a\nRUN tool --mount=from=b", "a"),
        # ARG before FROM
        ("ARG V=3\nARG I=alpine:$V\nFROM ${I}", "alpine:3"),
        ("ARG V\nFROM alpine:${V:-edge}\nFROM b${V-:1}\nFROM c${V+:1}", "alpine:edge b:1 c"),
        ("ARG A=${B:-${C:-x}}\nFROM i:$A", "i:x"),
        ("ARG D=v1_2-r\nFROM i:${D#v}\nFROM j:${D%-*}\nFROM k:${D/_/.}", "i:1_2-r j:v1_2 k:v1.2-r"),
        ('ARG A="1" B=\'2\'\nARG C="x y"\nFROM i:$A-$B', "i:1-2"),
        # heredocs
        ("FROM a\nRUN <<EOF\nselect * \nFROM no\nEOF\nFROM b", "a b"),
        ("FROM a\nRUN x \\\n  <<EOF\nFROM no\nEOF\nFROM b", "a b"),
        ("FROM a\nRUN <<EOF\n EOF\nFROM no\nEOF\nFROM b", "a b"),
        ("FROM a\nCOPY <<'x' <<-y /\nFROM no\nx\nFROM no\n\ty\nFROM b", "a b"),
        ("FROM a\nRUN echo $((1<<2)) '<<EOF'\nFROM b", "a b"),
        # ONBUILD
        ("FROM a AS x\nONBUILD COPY --from=b / /\nFROM x", "a b"),
        ("FROM a AS x\nONBUILD COPY --from=b / /\nONBUILD RUN <<E\nFROM no\nE", "a"),
        ("FROM t", "of-t t"),
        ("FROM --platform=linux/s390x t", "t"),
        ("FROM a\nCOPY --from=t / /", "a t"),
        # directives
        ("# escape=`\nFROM a `\n  AS x\nRUN dir c:\\\nFROM b", "a b"),
        ("# syntax=docker/dockerfile:1\nFROM a", "a"),
    ],
)
def test_names(text, expected):
    assert sorted(images_of(text)) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", {"a": ["amd64", "arm64"]}),
        ("FROM a-$TARGETARCH", {"a-amd64": ["amd64"], "a-arm64": ["arm64"]}),
        ("FROM --platform=$BUILDPLATFORM a AS b\nFROM c\nCOPY --from=b / /", {"a": ["amd64"], "c": ["amd64", "arm64"]}),
        ("FROM --platform=linux/s390x a", {"a": ["s390x"]}),
    ],
)
def test_platforms(text, expected):
    assert images_of(text, None, AMD64, ARM64) == expected


def test_build_arguments_reach_only_global_args():
    text = "ARG I=alpine\nFROM $I\nARG J=x\nFROM ${J:-b}"
    assert images_of(text, {"I": "debian", "J": "nobody"}) == {"debian": ["arm64"], "b": ["arm64"]}


@pytest.mark.parametrize("line", ["FROM $V", "FROM b:$V", "FROM a\nRUN <<EOF", "FORM a"])
def test_what_cannot_be_read_is_shown_in_its_place(line):
    with pytest.raises(BuildError) as caught:
        images_of(f"FROM a\n\n{line}")
    assert "Dockerfile:" in str(caught.value)
    assert "^" in str(caught.value)
