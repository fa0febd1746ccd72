"""The heartbeat of held messages, against an SQS that only takes notes."""

import threading
from typing import Any, cast
from unittest.mock import Mock

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.parsers import ResponseParserError
from structlog.testing import capture_logs

from facerec.celery_sqs.visibility import VisibilityKeeper


class Sqs:
    """Notes extensions as (queue, receipt, seconds); refuses the receipts in `lost`, or every call with `fault`."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.extended: list[tuple[str, str, int]] = []
        self.lost: set[str] = set()
        self.code = "ReceiptHandleIsInvalid"
        self.fault: Exception | None = None
        self.called = threading.Event()

    def change_message_visibility_batch(self, **request: Any) -> dict[str, Any]:
        """As boto3's."""
        self.called.set()
        entries = request["Entries"]
        self.calls.append(len(entries))
        if self.fault is not None:
            raise self.fault
        failed = [
            {"Id": e["Id"], "SenderFault": True, "Code": self.code} for e in entries if e["ReceiptHandle"] in self.lost
        ]
        self.extended += [
            (request["QueueUrl"], e["ReceiptHandle"], e["VisibilityTimeout"])
            for e in entries
            if e["ReceiptHandle"] not in self.lost
        ]
        return {"Failed": failed}


def keeper(sqs: Sqs, timeout_seconds: float = 3000) -> VisibilityKeeper:
    """A keeper that beats by itself only after a long time."""
    return VisibilityKeeper(cast("Any", sqs), cast("int", timeout_seconds))


def test_extends_what_is_held() -> None:
    """Held messages are extended to the whole timeout; released ones are not."""
    sqs = Sqs()
    held = keeper(sqs)
    held.hold("a", "queue")
    held.hold("b", "queue")
    held.release("a")
    held.beat()
    held.stop()
    assert sqs.extended == [("queue", "b", 3000)]


def test_a_heartbeat_that_could_not_begin_begins_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have as many threads as it is allowed, for a moment."""
    sqs = Sqs()
    held = keeper(sqs, timeout_seconds=0.03)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            held.hold("a", "queue")
    held.hold("b", "queue")
    assert sqs.called.wait(10)
    held.stop()


def test_holds_until_it_lets_go() -> None:
    """The end of the heartbeat alone leaves the messages with us until their time is over."""
    held = keeper(Sqs())
    held.hold("a", "queue")
    held.stop()
    assert held.holds
    held.let_go()
    assert not held.holds


def test_ten_in_a_call() -> None:
    """SQS takes ten messages at a time."""
    sqs = Sqs()
    held = keeper(sqs)
    for index in range(23):
        held.hold(str(index), "queue")
    held.beat()
    held.stop()
    assert sqs.calls == [10, 10, 3]


def test_lets_go_what_is_no_longer_ours() -> None:
    """A receipt that SQS refuses belongs to someone else by now."""
    sqs = Sqs()
    sqs.lost = {"a"}
    held = keeper(sqs)
    held.hold("a", "queue")
    held.hold("b", "queue")
    held.beat()
    held.beat()
    held.stop()
    assert sqs.calls == [2, 1]


def test_keeps_what_is_throttled() -> None:
    """AWS calls it the sender's fault; the next beat extends it."""
    sqs = Sqs()
    sqs.lost, sqs.code = {"a"}, "RequestThrottled"
    held = keeper(sqs)
    held.hold("a", "queue")
    held.beat()
    assert held.holds
    held.stop()


@pytest.mark.parametrize(
    ("fault", "traced"),
    [
        (EndpointConnectionError(endpoint_url="http://nowhere"), False),
        (ResponseParserError("a proxy's page"), True),  # neither of botocore's two bases
    ],
)
def test_an_outage_is_survived(fault: Exception, traced: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What could not be extended is extended at the next beat; what nobody foresaw is logged with its traceback."""
    sqs = Sqs()
    sqs.fault = fault
    held = keeper(sqs)
    held.hold("a", "queue")
    with capture_logs() as logs:
        held.beat()
    assert [(entry["event"], "exc_info" in entry) for entry in logs] == [("visibility_not_extended", traced)]
    sqs.fault = None
    held.beat()
    held.stop()
    assert sqs.extended == [("queue", "a", 3000)]


def test_beats_by_itself() -> None:
    """From the first held message on, until it is stopped."""
    sqs = Sqs()
    held = keeper(sqs, timeout_seconds=0.03)
    held.hold("a", "queue")
    assert sqs.called.wait(5)
    held.stop()
