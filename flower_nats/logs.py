"""Structured logs: an action name that stays the same, and key=value fields.

An event is named after what happened, in lower case with underscores (`node_activated`,
`run_finished`). A name never contains values: values are fields. On a terminal, people read
colours; anywhere else, machines read one JSON object per line. Log records of libraries (nats,
grpc, psycopg) pass through the same handlers, so that a process writes one format.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import TimedRotatingFileHandler

import structlog
from structlog.typing import EventDict, Processor

from flower_nats.model.long_texts import cut_middle
from flower_nats.model.visible import visible_lines
from flower_nats.settings import LogSettings

_LONGEST_FIELD = 32 * 1024
"""Bytes of a field: enough for any traceback."""

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; `name` is its `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logs(settings: LogSettings) -> None:
    """Send this process's log to stderr and, if the settings say so, to a rotated file.

    Raises OSError when the file cannot be opened.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = _handlers(settings)
    root.setLevel(settings.level.upper())
    # The library's debug lines, several for each call, would hide ours.
    logging.getLogger("grpc").setLevel(logging.WARNING)


def _handlers(settings: LogSettings) -> list[logging.Handler]:
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_for_people() if sys.stderr.isatty() else _for_machines())
    if settings.file is None:
        return [stream]
    file = TimedRotatingFileHandler(
        settings.file,
        when="H",
        interval=settings.rotation_interval_hours,
        backupCount=settings.rotation_backup_count,
        encoding="utf-8",
        utc=True,
    )
    file.setFormatter(_for_machines())
    return [stream, file]


def _for_people() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _cut,
            _make_visible,
            structlog.dev.ConsoleRenderer(colors=True),
        ],
    )


def _make_visible(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in names that strangers gave, for terminals; JSON has none."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = visible_lines(value)
    return event


def _cut(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Cut long fields. They may come from clients, and a few of them could fill the disk."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = cut_middle(value, _LONGEST_FIELD)
    return event


def _for_machines() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _cut,
            structlog.processors.JSONRenderer(),
        ],
    )
