"""How the proxy logs: plain lines for a person at a terminal, JSON for everything else; always on standard error."""

from __future__ import annotations

from typing import TextIO

import structlog


def configure_logging(stream: TextIO) -> None:
    """Sends all log events to ``stream``."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
