"""What gets into the logs."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from waitress.utilities import logger as waitress
from waitress.utilities import queue_logger

from facerec.observability.logs import configure_logging
from facerec.settings.tiers import LogSettings


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("level", ["debug", "info"])
def test_a_busy_web_tier_does_not_log_each_request(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Waitress warns whenever a request finds no idle thread; its other warnings are kept."""
    configure_logging(LogSettings.model_validate({"level": level, "format": "json"}), process="web")
    queue_logger.warning("Task queue depth is %d", 3)
    waitress.warning("something else")
    said = capsys.readouterr().err
    assert "Task queue depth" not in said
    assert "something else" in said
