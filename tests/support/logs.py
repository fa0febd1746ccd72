"""Log records of this process, captured also while its other threads log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import LogCapture
from structlog.typing import EventDict, Processor

_captures: list[Sequence[Processor]] = []
"""What records go through, the innermost capture last."""


def make_capturable() -> None:
    """Let `capture_logs` see the records of the loggers that are made from now on."""
    processors = structlog.get_config()["processors"]
    if _tap not in processors:
        structlog.configure(processors=[_tap, *processors])


@contextmanager
def capture_logs(processors: Sequence[Processor] = ()) -> Iterator[list[Any]]:
    """As structlog's, which exchanges the processors, also while a record of another thread is on its way."""
    assert _tap in structlog.get_config()["processors"], "this test has changed structlog's configuration"
    capture = LogCapture()
    _captures.append((*processors, capture))
    try:
        yield capture.entries
    finally:
        _captures.pop()


def _tap(logger: Any, method_name: str, record: EventDict) -> EventDict:
    """Give a record to the innermost capture, which ends its way; without one it goes on."""
    for processors in _captures[-1:]:
        for processor in processors:
            record = processor(logger, method_name, record)  # type: ignore[assignment]  # none of them renders it
    return record
