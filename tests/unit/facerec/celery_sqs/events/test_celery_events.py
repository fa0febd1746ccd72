"""Celery's side of the events: what its dispatcher and its receiver do here."""

import threading
from typing import Any

import pytest
from celery.events.state import State

from facerec.celery import FacerecCelery
from facerec.celery_sqs.events.batches import body, packed, parse
from facerec.errors import Transient
from facerec.settings import Settings
from facerec.settings.tiers import EventsSettings
from tests.fakes.event_queue import InMemoryEventQueue
from tests.support.logs import capture_logs


@pytest.fixture
def queue() -> InMemoryEventQueue:
    """A queue of its own for each test."""
    return InMemoryEventQueue()


@pytest.fixture
def app(queue: InMemoryEventQueue) -> Any:
    """An application on that queue."""
    app = FacerecCelery("test", set_as_current=False)
    app.settings = Settings(events=EventsSettings(window_seconds=10))
    events: Any = app.events
    events.queue = lambda: queue
    return app


def sent(app: Any, queue: InMemoryEventQueue) -> list[dict[str, Any]]:
    """What the application has said when it ends."""
    app.events.outbox.close(30)
    return [dict(event) for text in queue.await_sent(1) for event in parse(text).events]


def captured(app: Any, until: int) -> list[dict[str, Any]]:
    """The first events that the receiver hands over."""
    events: list[dict[str, Any]] = []

    def note(event: dict[str, Any]) -> None:
        events.append(event)
        if len(events) == until:
            receiver.stop()

    receiver = app.events.Receiver(handlers={"*": note})
    thread = threading.Thread(target=receiver.capture, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return events


def task(kind: str, timestamp: float = 1000.0, **fields: Any) -> dict[str, Any]:
    """An event of a task."""
    return {"type": kind, "hostname": "w", "timestamp": timestamp, "clock": 1, "uuid": "u", "name": "n"} | fields


def test_events_are_as_celerys_state_expects(app: Any, queue: InMemoryEventQueue) -> None:
    """From a worker's consumer, and from senders of tasks."""
    dispatcher = app.events.Dispatcher(hostname="w@h", groups=["task", "worker"])
    dispatcher.send("worker-online", freq=2.0, active=0, retry=True)
    dispatcher.send("task-received", uuid="u", name="n", args="a.jpg")
    dispatcher.send("task-succeeded", uuid="u", result="'match'", runtime=0.5)
    dispatcher.send("other-thing")
    app.events.Dispatcher(hostname="web", enabled=False).publish("task-sent", {"uuid": "v", "name": "n"}, None)
    state: Any = State()
    for event in sent(app, queue):
        state.event(event | {"local_received": event["timestamp"]})
    assert state.workers["w@h"].alive
    assert (state.tasks["u"].state, state.tasks["u"].result, state.tasks["u"].args) == ("SUCCESS", "'match'", "a.jpg")
    assert (state.tasks["v"].state, state.tasks["v"].client) == ("PENDING", "web")


def test_disabled_dispatcher_sends_nothing(app: Any, queue: InMemoryEventQueue) -> None:
    """As Celery's own."""
    app.events.Dispatcher(enabled=False).send("worker-online", freq=1)
    app.events.outbox.close(30)
    assert queue.left == 0


def test_stopping_worker_sends_its_offline_event_last(app: Any, queue: InMemoryEventQueue) -> None:
    """Celery closes the dispatcher before the pool; a later event of a task would make the worker online again."""
    dispatcher = app.events.Dispatcher(hostname="w@h")
    dispatcher.send("task-started", uuid="u")
    dispatcher.send("worker-offline", freq=2.0, retry=False)
    dispatcher.disable()
    dispatcher.close()
    assert dispatcher.enabled
    dispatcher.send("task-succeeded", uuid="u", result="r", runtime=1)
    assert [event["type"] for event in sent(app, queue)] == ["task-started", "task-succeeded", "worker-offline"]


def test_receiver_handles_each_event_once_and_deletes(app: Any, queue: InMemoryEventQueue) -> None:
    """It skips duplicates, garbage and useless events, and leaves nothing in the queue."""
    (part,) = packed([task("task-received"), task("task-started")])
    queue.send("garbage")
    queue.send(f'{{"version": 1, "source": {"[" * 100_000}')
    queue.send(body("t", 1, 0, f'[{{"type": "task-x", "hostname": "w", "timestamp": 1{"0" * 400}}}]'))
    queue.send(body("s", 1, 0, part))
    queue.send(body("s", 1, 0, part))
    queue.send(body("s", 2, 0, '[{"type": 5}, {"type": "task-failed"}]'))
    (last,) = packed([task("task-succeeded")])
    queue.send(body("s", 3, 0, last))
    with capture_logs() as logs:
        events = captured(app, 3)
    assert [event["type"] for event in events] == ["task-received", "task-started", "task-succeeded"]
    assert queue.left == 0
    assert [entry["event"] for entry in logs] == ["event_batch_unreadable"] * 3


def test_waiting_events_get_the_time_of_the_queue(app: Any, queue: InMemoryEventQueue) -> None:
    """After an outage of Flower an old heartbeat does not make a dead worker alive."""
    queue.sent_at = 2_000.0
    heartbeat = {"type": "worker-heartbeat", "hostname": "w", "timestamp": 1_999.0, "clock": 1, "freq": 5}
    (part,) = packed([heartbeat])
    queue.send(body("s", 1, 0, part))
    (event,) = captured(app, 1)
    assert event["local_received"] == 2_000.0
    state: Any = State()
    state.event(event)
    assert not state.workers["w"].alive


def test_receiver_goes_on_after_an_outage_and_logs_it_once(
    app: Any, queue: InMemoryEventQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that went blind for good would be worse than none."""
    monkeypatch.setattr("facerec.celery_sqs.events.celery_events.backoff_seconds", lambda *_: 0.001)
    (part,) = packed([task("task-received")])
    queue.send(body("s", 1, 0, part))
    faults: list[Exception] = [Transient("away"), ValueError("an unknown fault"), Transient("away")]
    receive = queue.receive

    def failing(**options: Any) -> Any:
        if faults:
            raise faults.pop()
        return receive(**options)

    monkeypatch.setattr(queue, "receive", failing)
    with capture_logs() as logs:
        assert len(captured(app, 1)) == 1
    assert [entry["event"] for entry in logs] == ["events_queue_unreachable", "events_queue_reachable_again"]


def test_receiver_logs_dropped_and_missing_events(
    app: Any, queue: InMemoryEventQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a part would look like everything."""
    monkeypatch.setattr("facerec.celery_sqs.events.batches._MISSING_SECONDS", 0.0)
    (part,) = packed([task("task-received")])
    for sequence, lost in ((1, 0), (4, 7)):
        queue.send(body("s", sequence, lost, part))
    with capture_logs() as logs:
        captured(app, 2)
    assert [entry["event"] for entry in logs] == ["events_lost_by_their_sender", "events_missing"]
    assert (logs[0]["count"], logs[1]["messages"]) == (7, 2)
    assert "another Flower" in logs[1]["hint"]
