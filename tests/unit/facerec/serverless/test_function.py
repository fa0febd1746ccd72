"""An invocation goes to the route of its event; its lines and metrics are in the log of the function."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog

from facerec.celery_sqs.received_task import task_id
from facerec.errors import EngineFailure
from facerec.serverless.batch import Messages
from facerec.serverless.events import EventKind, kind_of
from facerec.serverless.function import Function
from facerec.serverless.telemetry import Telemetry
from facerec.settings import Settings
from tests.fakes.functions import Context, DetectionTier, InvokingQueue, request_for, sqs_record


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    root.manager.loggerDict.pop("detection", None)  # Powertools keeps its handler there
    structlog.reset_defaults()


class World:
    """A detection function between fakes, for messages alone."""

    def __init__(self) -> None:
        self.tier, self.engine_ended, self.begun = DetectionTier(), False, 0
        messages = Messages(InvokingQueue(), task_id, self.tier.driver, max_receives=4)
        self.function = Function(
            Telemetry(Settings(), "detection"),
            {EventKind.SQS: messages.answer},
            engine_ended=lambda: self.engine_ended,
            before=self.begin,
        )

    def begin(self) -> None:
        """Count invocations."""
        self.begun += 1

    def invoke(self, *filenames: str) -> Any:
        """With a message for each photo."""
        records = [sqs_record(n, request_for(name, UUID(int=n))) for n, name in enumerate(filenames, start=1)]
        return self.function.handler({"Records": records}, Context())


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What the function has written since the last call."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_delivery_has_one_line_with_the_context_of_lambda(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the canonical line of every tier."""
    World().invoke("a.jpg")
    (line,) = [line for line in lines(capsys) if line.get("event") == "recognised"]
    assert line["outcome"] == "forwarded"
    assert (line["level"], line["process"], line["attempt"]) == ("info", "detection", 1)
    assert line["request_id"] == str(UUID(int=1))
    assert line["function_request_id"] == Context.aws_request_id
    assert line["function_name"] == Context.function_name
    assert "cold_start" in line
    assert "message" not in line


def test_lines_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """Their text is the event, and a traceback shows no local variable."""
    World()
    logging.getLogger("library").warning("cannot read %s", "this")
    try:
        int("no number")
    except ValueError:
        structlog.get_logger().exception("failed")
    library, own = lines(capsys)
    assert (library["event"], library["level"]) == ("cannot read this", "warning")
    assert own["exception"][0]["exc_type"] == "ValueError"
    assert "locals" not in own["exception"][0]["frames"][0]


def test_invocation_counts_its_deliveries(capsys: pytest.CaptureFixture[str]) -> None:
    """As metrics in the log, under the prefix and the function's name; the cold start counts once."""
    world = World()
    world.tier.half.raised |= {"poison": EngineFailure("crashed"), "bug": RuntimeError("a bug")}
    world.invoke("a.jpg", "b.jpg", "no_face.jpg", "poison.jpg", "bug.jpg")
    cold, counted = [line for line in lines(capsys) if "_aws" in line]
    assert cold["ColdStart"] == [1.0]
    assert counted["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "facerec"
    assert counted["service"] == "detection"
    assert counted["deliveries_forwarded"] == [2.0]
    assert counted["deliveries_no_face"] == [1.0]
    assert (counted["dead_letters"], counted["failures"]) == ([1.0], [1.0])
    world.invoke("a.jpg")
    (counted,) = [line for line in lines(capsys) if "_aws" in line]
    assert (counted["dead_letters"], counted["failures"]) == ([0.0], [0.0])
    assert world.begun == 2


def test_process_ends_after_its_engine(capsys: pytest.CaptureFixture[str]) -> None:
    """Lambda starts another; the messages come back, which the handler has asked for before."""
    world = World()
    world.engine_ended = True
    with pytest.raises(SystemExit):
        world.invoke("a.jpg")
    assert "engine_ended" in [line.get("event") for line in lines(capsys)]


@pytest.mark.parametrize("event", [{}, None, [], {"Records": [{"eventSource": "aws:sns"}]}, {"a": 1}])
def test_other_event_is_refused(event: Any) -> None:
    """The function's own route is named."""
    with pytest.raises(ValueError, match="it takes events of aws:sqs"):
        World().function.handler(event, Context())


def test_kind_of_an_event_is_that_of_its_source() -> None:
    """A foreign record among messages does not change it."""
    assert kind_of({"Records": [{"eventSource": "aws:sns"}, {"eventSource": "aws:sqs"}]}) is EventKind.SQS
    assert kind_of({"Records": []}) is EventKind.SQS
    assert kind_of({"Records": [{"eventSource": "aws:s3"}]}) is EventKind.S3
    assert kind_of({"requestContext": {"http": {}}}) is EventKind.URL
    assert kind_of({"requestContext": {"elb": {}}}) is None
