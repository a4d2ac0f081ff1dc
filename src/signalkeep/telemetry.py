"""Logs: one logger, structured, to standard error. Never a secret, never a payload beyond a short sample."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from signalkeep.config import LogSettings


def configure(settings: LogSettings, role: str) -> None:
    """Set up logging for this process; every line carries the role."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
