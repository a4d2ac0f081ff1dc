"""Logs: one logger, structured, to standard error. Never a secret, never a payload beyond a short sample.

What libraries say through `logging` or `warnings` takes the same way. With `log.format = "json"` every line is one JSON
object, whatever happens: a traceback stands in its field `exception`, and what a command would otherwise tell a person
in plain words is a line like the others (`only_json` says so to those who would).
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from signalkeep.sections import LogSettings

_chosen = {"json": False}

# Commands that configure nothing may log, too: their standard output is for what they were asked.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


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
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(handlers=[_ToOurs()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    _chosen["json"] = settings.format == "json"


def only_json() -> bool:
    """Whether this process owes its readers nothing but JSON on standard error."""
    return _chosen["json"]


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


class _ToOurs(logging.Handler):
    """Hands what a library logs to our logger."""

    def emit(self, record: logging.LogRecord) -> None:
        say = get_logger().error if record.levelno >= logging.ERROR else get_logger().warning
        say(record.getMessage(), logger=record.name, exc_info=record.exc_info)
