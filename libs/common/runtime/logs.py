"""Logging: one JSON object per line on stderr. Every record has an `action`, a
machine-readable name of the event; the message is for people."""

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


def configure(service: str, level: str) -> None:
    """Send records of this code and of libraries to stderr. Call once per process."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_service(service),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # Libraries log warnings and errors only.
    logging.basicConfig(
        handlers=[handler], level=max(number, logging.WARNING), force=True
    )
    # It logs every failed attempt, twice a second while Postgres is down. The store
    # reports the cause to its caller, which logs it once.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class _Stderr:
    """Standard error that ignores write errors. The reader may be gone (a killed
    supervisor), and a failed log call must not stop the code that made it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _add_service(service: str) -> structlog.types.Processor:
    def add(
        _: object, __: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        event.setdefault("action", "library")
        event["service"] = service
        return event

    return add
