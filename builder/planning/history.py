"""What an image's history says of each instruction, in BuildKit's words (``created_by``).

Steps that made a layer from files or a command end in ``# buildkit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from builder.dockerfile.durations import format_duration
from cache.oci.config import Healthcheck

_SUFFIX = " # buildkit"
_GO_ESCAPES = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
)


def arg_text(arguments: Iterable[tuple[str, str | None]]) -> str:
    """ARG with the values that hold, None for an argument without one."""
    return " ".join(["ARG", *(name if value is None else f"{name}={value}" for name, value in arguments)])


def env_text(pairs: Iterable[tuple[str, str]]) -> str:
    return _pairs_text("ENV", pairs)


def label_text(pairs: Iterable[tuple[str, str]]) -> str:
    return _pairs_text("LABEL", pairs)


def run_text(argv: Sequence[str], arguments: Mapping[str, str]) -> str:
    """RUN with its whole command line; ``arguments`` are the names of the ARGs so far, in order, with what the command
    sees under them."""
    values = [f"{name}={value}" for name, value in arguments.items()]
    count = [f"|{len(values)}"] if values else []
    return " ".join(["RUN", *count, *values, *argv]) + _SUFFIX


def copy_text(keyword: str, sources: Sequence[str], destination: str, flags: Mapping[str, str | bool]) -> str:
    """COPY or ADD; here-documents come last among the sources. Of the ``flags`` those are told that are set."""
    told = [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value]
    return " ".join([keyword, *told, *sources, destination]) + _SUFFIX


def workdir_text(path: str) -> str:
    """WORKDIR with its absolute path; it makes a layer, but does not say so."""
    return f"WORKDIR {path}"


def user_text(user: str) -> str:
    return f"USER {user}"


def expose_text(ports: Sequence[str]) -> str:
    """EXPOSE of ports as ``80/tcp``."""
    return f"EXPOSE [{' '.join(ports)}]"


def volume_text(paths: Sequence[str]) -> str:
    return f"VOLUME [{' '.join(paths)}]"


def cmd_text(argv: Sequence[str]) -> str:
    """CMD; ``argv`` with the shell before a shell form."""
    return f"CMD {_quoted(argv)}"


def entrypoint_text(argv: Sequence[str]) -> str:
    """ENTRYPOINT; ``argv`` with the shell before a shell form."""
    return f"ENTRYPOINT {_quoted(argv)}"


def shell_text(argv: Sequence[str]) -> str:
    return f"SHELL [{' '.join(argv)}]"


def stop_signal_text(name: str) -> str:
    return f"STOPSIGNAL {name}"


def maintainer_text(author: str) -> str:
    return f"MAINTAINER {author}"


def health_check_text(check: Healthcheck) -> str:
    """HEALTHCHECK as Go's ``%q`` prints the structure that BuildKit keeps: the test, durations, retries as a rune."""
    lengths = (check.interval, check.timeout, check.start_period, check.start_interval)
    durations = " ".join(quoted(format_duration(length_ns)) for length_ns in lengths)
    return f"HEALTHCHECK &{{{_quoted(check.test)} {durations} {_quoted_rune(check.retries)}}}"


def _quoted_rune(number: int) -> str:
    """A number as Go's ``%q`` prints it: the character with that code."""
    valid = number < 0xD800 or 0xDFFF < number <= 0x10FFFF
    escaped = _go_escaped(chr(number) if valid else "\ufffd").replace('\\"', '"')
    return "'\\''" if escaped == "'" else f"'{escaped}'"


def _pairs_text(keyword: str, pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join([keyword, *(f"{name}={value}" for name, value in pairs)])


def _quoted(argv: Sequence[str]) -> str:
    """``argv`` as Go's ``%q`` prints it."""
    return "[" + " ".join(map(quoted, argv)) + "]"


def quoted(word: str) -> str:
    """``word`` as Go's ``%q`` prints it."""
    return f'"{_go_escaped(word)}"'


def _go_escaped(word: str) -> str:
    return "".join(char if char.isprintable() else _go_number(char) for char in word.translate(_GO_ESCAPES))


def _go_number(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
