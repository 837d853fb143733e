"""How the proxy logs: plain lines for a person at a terminal, JSON for everything else; always on standard error."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from proxy.config import LogStyle
from proxy.observe.secret_text import MASK, mask_secrets, names_secret

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being answered; what it starts in the background keeps it."""
_PLAIN = {"event", "level", "timestamp", "request_id", "audit", "kind", "method", "repository", "reference"}
_PLAIN |= {"outcome", "upstream", "who", "digest", "decision", "source", "right"}
"""Fields whose grammar leaves no room for a secret; most lines have no others."""
_NUMBERS = frozenset((int, float, bool))
_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}

_processors: list[Processor] = []
"""Changed in place: loggers that were used once keep the list."""


def configure_logging(stream: TextIO, style: LogStyle) -> None:
    """Sends all log events to ``stream`` in this style; may be called again to change the style."""
    as_text = style.form == "text" or (style.form is None and stream.isatty())
    threshold = _LEVELS[style.level]

    def drop_below(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if _LEVELS.get(method, logging.ERROR) < threshold:
            raise structlog.DropEvent
        return event

    _processors[:] = [
        drop_below,
        add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_fields,
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if as_text else render_json,
    ]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Adds the request that the event belongs to, if it does to one."""
    if request_id := REQUEST_ID.get():
        event["request_id"] = request_id
    return event


def mask_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Takes what looks like a secret out of every field that is free text."""
    for key, value in event.items():
        if key in _PLAIN or type(value) in _NUMBERS:
            continue
        if isinstance(value, list | tuple):
            event[key] = [_masked(key, item) for item in value]
        else:
            event[key] = _masked(key, value)
    return event


def _masked(key: str, value: object) -> str:
    return MASK if names_secret(key) else mask_secrets(str(value))


def render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """One line of JSON; values that JSON does not have are written as text."""
    return _encoder.encode(event).decode()


_encoder = msgspec.json.Encoder(enc_hook=str)
