"""What gets into the logs."""

import logging
import re
from collections.abc import Iterator

import pytest
import structlog
from waitress.utilities import logger as waitress
from waitress.utilities import queue_logger

from facerec.observability.logs import configure_logging
from facerec.settings.tiers import LogSettings
from facerec.text import is_text


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


def test_console_records_show_values_from_outside_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a file name nor an error can control the terminal, look like another record, or lose its record."""
    hostile = "a\x1b[2J\x9b1m\u202eb\nfake\u2028fake\udcff"
    configure_logging(LogSettings.model_validate({"level": "info", "format": "console"}), process="web")
    structlog.get_logger().info("upload", filename=hostile, names=[hostile])
    logging.getLogger("library").warning("cannot read %s", hostile)
    structlog.get_logger().error("failed", exc_info=ValueError(hostile))
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    assert all(is_text(character) or character == "\n" for character in said), said
    assert "Logging error" not in said  # a lone surrogate would lose the record
    assert said.count("fake") == 8
    assert not any(line.startswith("fake") for line in said.splitlines())
