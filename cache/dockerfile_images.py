"""The images that a Dockerfile starts from or copies from, so that they can be fetched before a build.

This reads no more of the language than that takes; the builder has its own, full parser.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping

from dockerfile_parse import DockerfileParser

_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?(?P<quote>[\"']?)(?P<name>[A-Za-z_]\w*)(?P=quote)")
_TAKES_HEREDOC = re.compile(r"\s*(?:RUN|COPY|ADD)\s", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<operator>[-+])(?P<word>[^}]*))?\})")
_COPY_FROM = re.compile(r"(?:^|\s)--from=(\S+)")
_MOUNT_FROM = re.compile(r"(?:^|\s)--mount=(?:[^\s]*,)?from=([^\s,]+)")
SCRATCH = "scratch"


def images_of(text: str, build_args: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the images that the Dockerfile needs, each once, in order of first use.

    ``build_args`` override the defaults of global ARGs. Raises ValueError, which names the line, for an image
    whose name needs a variable that has no value.
    """
    found: dict[str, None] = {}
    stages: set[str] = set()
    arguments: dict[str, str] = {}
    begun = False
    for instruction, value, line in _instructions(text):
        if instruction == "ARG" and not begun:
            arguments |= _global_arguments(value, arguments, build_args)
        elif instruction == "FROM":
            begun = True
            image, stage = _from(_expand(value, arguments, line))
            if image.lower() not in {*stages, SCRATCH}:
                found[image] = None
            stages |= {stage.lower()} if stage else set()
        elif begun:
            names = _COPY_FROM.findall(value) if instruction == "COPY" else _MOUNT_FROM.findall(value)
            images = (name for name in names if not name.isdecimal() and name.lower() not in stages and "$" not in name)
            found |= dict.fromkeys(images)
    return tuple(found)


def _instructions(text: str) -> Iterator[tuple[str, str, int]]:
    parser = DockerfileParser(fileobj=io.BytesIO(_without_heredocs(text).encode()))
    for part in parser.structure:
        yield part["instruction"].upper(), part["value"], part["startline"] + 1


def _without_heredocs(text: str) -> str:
    """The text with empty lines in place of heredocs' bodies, whose lines could look like instructions."""
    kept: list[str] = []
    ends: list[str] = []
    for line in text.splitlines():
        if ends:
            if line.strip() == ends[0]:
                del ends[0]
            kept.append("")
            continue
        kept.append(line)
        if _TAKES_HEREDOC.match(line):
            ends = [match["name"] for match in _HEREDOC.finditer(line)]
    return "\n".join(kept) + "\n"


def _global_arguments(value: str, known: Mapping[str, str], build_args: Mapping[str, str]) -> dict[str, str]:
    """The ARGs of one instruction that have a value."""
    found: dict[str, str] = {}
    for word in value.split():
        name, equals, default = word.partition("=")
        if name in build_args:
            found[name] = build_args[name]
        elif equals:
            found[name] = _VARIABLE.sub(lambda match: _value(match, {**known, **found}) or "", default.strip("\"'"))
    return found


def _expand(value: str, arguments: Mapping[str, str], line: int) -> str:
    def replaced(match: re.Match[str]) -> str:
        expanded = _value(match, arguments)
        if expanded is None:
            raise ValueError(f"line {line}: {match[0]} has no value: give it by --build-arg")
        return expanded

    flags_and_image = [word for word in value.split() if not word.startswith("--platform=")]
    return _VARIABLE.sub(replaced, " ".join(flags_and_image))


def _value(match: re.Match[str], arguments: Mapping[str, str]) -> str | None:
    value = arguments.get(match["plain"] or match["name"])
    word = _VARIABLE.sub(lambda inner: _value(inner, arguments) or "", match["word"] or "")
    match match["operator"]:
        case "-":
            return value or word
        case "+":
            return word if value else ""
        case _:
            return value


def _from(value: str) -> tuple[str, str]:
    """Image and stage name ("" = none) of a FROM."""
    words = [word for word in value.split() if not word.startswith("--")]
    stage = words[2] if len(words) > 2 and words[1].upper() == "AS" else ""
    return words[0].strip("\"'") if words else "", stage
