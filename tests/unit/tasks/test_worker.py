"""The worker's start and end as Celery's signals bring them about."""

from collections.abc import Callable
from typing import Any

import pytest
from celery.signals import worker_init

from facerec.celery import app
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from tasks import worker
from tests.support.logs import capture_logs


class Controller:
    """What Celery sends its signal with."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Has Celery start a worker whose opening raises."""
    monkeypatch.setattr(app, "settings", Settings(), raising=False)
    monkeypatch.setattr(worker, "configure_logging", lambda *_, **__: None)

    def start(problem: Exception) -> None:
        def fail(_: Settings) -> None:
            raise problem

        monkeypatch.setattr(worker.Worker, "open", fail)
        worker_init.send(sender=Controller())

    return start


@pytest.mark.parametrize("problem", [ValueError("an unknown fault"), OSError(28, "No space left on device")])
def test_worker_that_cannot_be_opened_does_not_start(start: Callable[[Exception], None], problem: Exception) -> None:
    """Celery would start it without an engine; the log has one record, with the traceback."""
    with capture_logs() as records, pytest.raises(SystemExit) as ended:
        start(problem)
    assert ended.value.code == 1
    (record,) = records
    assert (record["event"], record["log_level"], record["exc_info"]) == ("worker_not_started", "error", True)
    assert record["reason"] == repr(problem)


def test_configuration_error_is_one_line_for_the_operator(
    start: Callable[[Exception], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback."""
    with capture_logs() as records, pytest.raises(SystemExit) as ended:
        start(ConfigurationError("there is no queue"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == "facerec: there is no queue\n"
    assert records == []
