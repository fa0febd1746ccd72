"""Logs and metrics of the functions through Powertools: one JSON line per record, metrics in the log (EMF).

Each line has the name and request id of the function, and `cold_start`, beside what our records have everywhere.
Importing this module must be quick: the engine's child starts only afterwards.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from aws_lambda_powertools import Logger, Metrics

from facerec.observability.logs import TRACEBACKS, take_over_logging
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.serverless.invocation import Invocation

Handler = Callable[[Any, Any], Any]


class Telemetry:
    """The logger and the metrics of one function."""

    def __init__(self, settings: Settings, function: str) -> None:
        self._logger = Logger(
            service=function, level=settings.log.level.upper(), json_serializer=_line, use_rfc3339=True, utc=True
        )
        self._metrics = Metrics(namespace=settings.prefix, service=function)
        self._cold = True
        take_over_logging(self._logger.registered_handler, settings.log)
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, TRACEBACKS, _as_message],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.make_filtering_bound_logger(self._logger.log_level),
        )

    def in_context(self, handler: Handler) -> Handler:
        """Return a handler during which each line has Lambda's context."""
        return self._logger.inject_lambda_context(handler)

    def count(self, context: Any, invocation: "Invocation") -> None:
        """Write the metrics of an invocation."""
        from facerec.delivery.driver import DEAD_LETTER_OUTCOMES, ERROR, REDELIVERED  # noqa: PLC0415 - see above

        metrics, outcomes = self._metrics, Counter(str(record.outcome) for record in invocation.records)
        if self._cold:
            metrics.provider.add_cold_start_metric(context)
            self._cold = False
        for outcome, number in outcomes.items():
            metrics.add_metric(f"deliveries_{outcome}", "Count", number)
        dead = sum(outcomes[str(outcome)] for outcome in DEAD_LETTER_OUTCOMES)
        failed = outcomes[REDELIVERED] + outcomes[ERROR] + invocation.unfinished
        metrics.add_metric("dead_letters", "Count", dead)
        metrics.add_metric("failures", "Count", failed)
        metrics.flush_metrics()


def _as_message(_logger: Any, _method: str, event: structlog.typing.EventDict) -> tuple[tuple[Any], dict[str, Any]]:
    """Hand a record to the standard library as it is; Powertools takes a dictionary for the message."""
    return (event,), {}


def _line(record: dict[str, Any]) -> str:
    """A record as a line: our own have their `event`, and the text of every other becomes it."""
    said = record.pop("message", "")
    own = said if isinstance(said, dict) else {"event": said}
    line = {**record, "level": str(record["level"]).lower(), "process": record["service"], **own}
    return json.dumps(line, default=str, separators=(",", ":"))
