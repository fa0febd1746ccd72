"""Structured logging: JSON off a terminal, readable lines on one. Every record has a stable `event`.

Bind `request_id` with `structlog.contextvars.bound_contextvars` in a thread that works for one request. Never log an
embedding, image bytes or a credential.
"""

import logging
import sys
from io import StringIO
from textwrap import indent
from typing import TextIO

import structlog

from facerec.settings.tiers import LogSettings
from facerec.text import lines, one_line

# Local variables hold pictures, embeddings and credentials, which must not be logged.
TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_VERBOSE = ("botocore", "boto3", "urllib3", "kombu", "celery.utils.functional", "s3transfer", "PIL")
# Under load it warns for each request, because no thread is idle.
_ONLY_ERRORS = ("waitress.queue",)


def configure_logging(settings: LogSettings, *, process: str, instance_id: str | None = None) -> None:
    """Send the records of structlog and of the standard library to stderr in one form; idempotent.

    Each record has the program's name as `process` (`web`, `worker`, `autoscale`), and on EC2 the `instance_id`.
    """
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add({"process": process} | ({"instance_id": instance_id} if instance_id else {})),
    ]
    rendering: list[structlog.typing.Processor] = (
        [TRACEBACKS, structlog.processors.JSONRenderer()]
        if as_json
        else [_clean, structlog.dev.ConsoleRenderer(exception_formatter=_clean_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    take_over_logging(handler, settings)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        cache_logger_on_first_use=True,
    )


def take_over_logging(handler: logging.Handler, settings: LogSettings) -> None:
    """Send the records of every library to this handler alone, without those that would only be noise."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[settings.level])
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(max(logging.WARNING, _LEVELS[settings.level]))
    for name in _ONLY_ERRORS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _clean(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep what comes from outside from controlling the terminal; values other than text are shown as their `repr`."""
    return {
        one_line(name): one_line(str(value)) if isinstance(value, str) or name == "event" else value
        for name, value in event.items()
    }


def _clean_traceback(into: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write the traceback indented, so that no line of an error's text looks like a record."""
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    into.write("\n" + indent(lines(text.getvalue().strip("\n")), "    "))


def _add(facts: dict[str, str]) -> structlog.typing.Processor:
    def add(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, **facts}

    return add
