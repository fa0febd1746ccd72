"""The component with an engine, a link and a broker in memory."""

import base64
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from facerec.edge.component import Component
from facerec.edge.frame import FrameSink
from facerec.edge.link import Link
from facerec.edge.sources.topic import TopicSource
from facerec.edge.spool import Spool
from facerec.edge.status import read_status
from facerec.edge.tracking import Tracker
from facerec.edge_messages import FrameMessage, faces_topic, frames_topic, results_topic, status_topic
from facerec.errors import ConfigurationError, FacerecError, Transient
from facerec.messages import Outcome, RecognitionResult
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.fakes.detector import DEADLY, HELD, FakeDetector
from tests.fakes.link import InMemoryBroker, InMemoryLink
from tests.support.logs import capture_logs

THING = "door-1"
SECONDS = 20


class Deployment:
    """A `ConfigurationSource` that the test sets."""

    def __init__(self) -> None:
        self.fields: Mapping[str, Any] | None = None
        self.failing = False
        self.asked = 0

    def changes(self) -> Mapping[str, Any] | None:
        """What was set since the last call."""
        self.asked += 1
        if self.failing:
            raise Transient("the nucleus does not answer")
        fields = self.fields
        if fields is not None:  # otherwise the test may be setting them at this very moment
            self.fields = None
        return fields


class Device:
    """A component in a thread of its own."""

    def __init__(self, folder: Path, **edge: Any) -> None:
        self.broker = InMemoryBroker()
        self.engine = FakeDetector()
        self.deployment = Deployment()
        self.opened: list[EdgeSettings] = []
        self.client_ids: list[str] = []
        settings = Settings(edge=EdgeSettings(thing=THING, state_dir=folder / "state", **edge))
        self.component = Component(
            settings, self.engine, self.deployment, open_link=self._open_link, at_once=2, poll_seconds=0.01
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failure: ConfigurationError | None = None

    def start(self, *, ready: bool = True) -> None:
        """Start, and wait until it takes frames."""
        self._thread.start()
        if ready:
            self.wait_for_status(lambda status: status["state"] in {"running", "degraded"})

    def stop(self) -> None:
        """Have it end, as SIGTERM does, and wait."""
        self._stopping.set()
        self.wait()

    def wait(self) -> None:
        """Wait for its end."""
        assert poll_until(lambda: not self._thread.is_alive(), SECONDS)

    def send_frame(self, name: str, image: bytes = b"1") -> uuid.UUID:
        """Send a frame to it over MQTT."""
        request_id = uuid.uuid4()
        message = FrameMessage(request_id=request_id, filename=name, encoded=base64.b64encode(image).decode("ascii"))
        self.broker.send(frames_topic(THING), message.to_json().encode())
        return request_id

    def received(self, topic: str) -> list[dict[str, Any]]:
        """What the broker has received on a topic."""
        with self.broker.lock:
            return [json.loads(payload) for each, payload in self.broker.received if each == topic]

    def names(self) -> list[str]:
        """The files of the messages so far."""
        return [message["filename"] for message in self.received(faces_topic(THING))]

    def wait_for_names(self, *names: str) -> None:
        """Wait until there is a message about each of these files."""
        assert poll_until(lambda: set(names) <= set(self.names()), SECONDS), self.names()

    def wait_for_status(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a status fits, and return the last such one."""
        assert poll_until(lambda: any(map(fits, self.received(status_topic(THING)))), SECONDS)
        return [status for status in self.received(status_topic(THING)) if fits(status)][-1]

    def _open_link(self, edge: EdgeSettings, thing: str, client_id: str) -> Link:
        self.opened.append(edge)
        self.client_ids.append(client_id)
        return InMemoryLink(self.broker, thing)

    def _run(self) -> None:
        try:
            self.component.run(self._stopping)
        except ConfigurationError as exc:
            self.failure = exc


@pytest.fixture(autouse=True)
def _any_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of the fake engine are no real ones."""
    monkeypatch.setattr("facerec.edge.frame.read_header", lambda *_: None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    """Makes devices of one state folder."""
    made: list[Device] = []

    def make_device(**edge: Any) -> Device:
        device = Device(tmp_path, **edge)
        made.append(device)
        return device

    yield make_device
    for device in made:
        device.stop()


@pytest.fixture
def device(make: Callable[..., Device]) -> Device:
    """A device that has not started."""
    return make()


def test_component_answers_frames_and_reports_its_state(device: Device) -> None:
    """From the start to the end."""
    device.start()
    device.send_frame("a.jpg", b"2")
    device.send_frame("b.jpg", b"0")
    device.wait_for_names("a.jpg", "b.jpg")
    device.stop()
    statuses = device.received(status_topic(THING))
    assert list(dict.fromkeys(status["state"] for status in statuses)) in (
        ["starting", "running", "stopped"],
        ["running", "stopped"],
    )
    last = statuses[-1]
    assert (last["thing"], last["model_id"], last["engine"]) == (THING, "fake-model", "fake")
    assert (last["counters"]["frames"], last["counters"]["faces"], last["counters"]["messages"]) == (2, 2, 2)
    assert (last["spool"]["messages"], last["link"]["connected"], last["source"]["kind"]) == (0, True, "topic")
    assert last["last_frame_at"] is not None
    assert device.engine.closed
    assert device.failure is None


def test_spooled_messages_are_sent_after_the_next_start(make: Callable[..., Device]) -> None:
    """Those that found no connection before the end, with the same client id."""
    first = make()
    first.start()
    first.send_frame("a.jpg", HELD)
    first.broker.stop()
    first.engine.release.set()
    assert poll_until(lambda: first.component.spool.depth == 1, SECONDS)
    first.stop()
    assert first.names() == []
    second = make()
    second.start()
    second.wait_for_names("a.jpg")
    second.stop()
    assert first.client_ids == second.client_ids
    name, _, suffix = first.client_ids[0].rpartition("-")
    assert (name, len(suffix)) == (THING, 8)


def test_results_are_logged(make: Callable[..., Device]) -> None:
    """Those that the device has asked for."""
    device = make(results=True)
    with capture_logs() as logs:
        device.start()
        result = RecognitionResult(
            request_id=uuid.uuid4(),
            result="Jane",
            filename="a.jpg",
            outcome=Outcome.MATCH,
            completed_at=datetime.now(UTC),
        )
        device.broker.send(results_topic(THING), b"no JSON")
        device.broker.send(results_topic(THING), result.to_json().encode())
        device.stop()
    assert [record["event"] for record in logs if "result" in record["event"]] == [
        "edge_result_unreadable",
        "edge_result",
    ]
    (logged,) = [record for record in logs if record["event"] == "edge_result"]
    assert (logged["request_id"], logged["filename"], logged["result"]) == (str(result.request_id), "a.jpg", "Jane")


def test_new_settings_are_used_while_it_runs(device: Device) -> None:
    """The parts are made anew; engine, spool and counters stay, and nothing that was spooled is lost."""
    device.start()
    device.send_frame("a.jpg")
    device.wait_for_names("a.jpg")
    device.deployment.fields = {"jpeg_quality": 92, "results": True, "state_dir": "/elsewhere", "thing": "other"}
    assert poll_until(lambda: len(device.opened) == 2, SECONDS)
    device.wait_for_status(lambda status: status["state"] == "running" and status["counters"]["messages"] == 1)
    device.send_frame("b.jpg")
    device.wait_for_names("b.jpg")
    device.stop()
    edge = device.opened[1]
    assert (edge.jpeg_quality, edge.results, edge.state_dir) == (92, True, device.opened[0].state_dir)
    assert device.received(status_topic(THING))[-1]["counters"]["messages"] == 2
    assert device.received(faces_topic(THING))[-1]["results"] is True


def test_settings_of_the_deployment_hold_from_the_start(device: Device) -> None:
    """They are read before anything is opened."""
    device.deployment.fields = {"in_flight": 3}
    device.start()
    device.stop()
    assert [edge.in_flight for edge in device.opened] == [3]


@pytest.mark.parametrize(
    "fields",
    [{"jpeg_quality": 900}, {"no_such_field": 1}, {"jpeg_quality": 90, "min_jpeg_quality": 95}],
)
def test_wrong_settings_are_rejected(device: Device, fields: dict[str, Any]) -> None:
    """The component goes on with the earlier ones, and says so until it gets right ones."""
    with capture_logs() as logs:
        device.start()
        device.deployment.fields = fields
        assert poll_until(lambda: any(record["event"] == "configuration_rejected" for record in logs), SECONDS)
        device.send_frame("a.jpg")
        device.wait_for_names("a.jpg")
        device.stop()
    assert len(device.opened) == 1
    assert "configuration is wrong" in device.received(status_topic(THING))[-1]["reasons"][0]


def test_settings_that_cannot_be_used_are_rejected(device: Device, tmp_path: Path) -> None:
    """Such as a key that others may read: the component goes back to the earlier ones."""
    key = tmp_path / "key.pem"
    key.touch(mode=0o644)
    with capture_logs() as logs:
        device.start()
        device.deployment.fields = {"key_file": str(key)}
        status = device.wait_for_status(lambda status: status["state"] == "degraded")
        device.send_frame("a.jpg")
        device.wait_for_names("a.jpg")
        device.stop()
    assert f"chmod 600 {key}" in status["reasons"][0]
    assert [edge.key_file for edge in device.opened] == [None, key, None]
    assert [record["event"] for record in logs if record["log_level"] == "error"] == ["configuration_rejected"]


def test_unreadable_configuration_is_an_outage(device: Device) -> None:
    """It is logged once; the component goes on."""
    with capture_logs() as logs:
        device.start()
        device.deployment.failing = True
        asked = device.deployment.asked
        assert poll_until(lambda: device.deployment.asked > asked + 3, SECONDS)
        device.deployment.failing = False
        assert poll_until(lambda: any(r["event"] == "configuration_reachable_again" for r in logs), SECONDS)
        device.stop()
    assert [record["event"] for record in logs].count("configuration_unreachable") == 1


def test_defect_of_a_source_does_not_end_the_frames(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the source is run again."""
    monkeypatch.setattr("facerec.edge.session.backoff_seconds", lambda *_: 0.01)
    run = TopicSource.run
    faults = iter([RuntimeError("a defect")])

    def run_badly(source: TopicSource, sink: FrameSink, stopping: threading.Event) -> None:
        if (fault := next(faults, None)) is not None:
            raise fault
        run(source, sink, stopping)

    monkeypatch.setattr(TopicSource, "run", run_badly)
    with capture_logs() as logs:
        device.start()
        device.send_frame("a.jpg")
        device.wait_for_names("a.jpg")
        device.stop()
    assert [record["event"] for record in logs if record["log_level"] == "error"] == ["source_failed"]


def test_component_ends_with_its_engine(device: Device) -> None:
    """The error ends the process; the last status says why."""
    device.start()
    device.send_frame("a.jpg", DEADLY)
    device.wait()
    assert str(device.failure) == "the engine does not start again"
    last = device.received(status_topic(THING))[-1]
    assert (last["state"], last["reasons"]) == ("stopped", ["the engine does not start again"])


def test_engine_that_does_not_start_ends_the_component(device: Device) -> None:
    """With its sentence, on the status topic, too."""
    device.engine.refuses_to_start = ConfigurationError("there is no model")
    device.start(ready=False)
    device.wait()
    assert str(device.failure) == "there is no model"
    assert device.received(status_topic(THING))[-1]["reasons"] == ["there is no model"]


def test_state_folder_has_one_process(make: Callable[..., Device]) -> None:
    """The second one gets a sentence."""
    first, second = make(), make()
    first.start()
    second.start(ready=False)
    second.wait()
    assert "another process uses the state folder" in str(second.failure)
    first.stop()
    assert first.failure is None
    third = make()
    third.start()
    third.stop()
    assert third.failure is None


def test_state_folder_has_the_status(device: Device, tmp_path: Path) -> None:
    """So that a check on the device sees it without a connection."""
    device.start()
    assert poll_until((tmp_path / "state" / "status.json").exists, SECONDS)
    assert read_status(tmp_path / "state")["thing"] == THING
    device.stop()
    with pytest.raises(FacerecError, match="the component is stopped"):
        read_status(tmp_path / "state")


def test_spool_and_tracker_are_made_as_set(make: Callable[..., Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own tests show what they do with it."""
    made: dict[type, tuple[Any, ...]] = {}

    def noted(part: type) -> Callable[..., Any]:
        def make_part(*given: Any, **named: Any) -> Any:
            made[part] = given
            return part(*given, **named)

        return make_part

    monkeypatch.setattr("facerec.edge.component.Spool", noted(Spool))
    monkeypatch.setattr("facerec.edge.session.Tracker", noted(Tracker))
    device = make(spool_max_bytes=2_000_000, spool_sync="normal", resend_seconds=7)
    device.start()
    device.stop()
    assert made[Spool][1:] == (2_000_000, "normal")
    assert made[Tracker] == (7,)


def test_state_folder_is_for_its_owner_alone(device: Device, tmp_path: Path) -> None:
    """The spool has faces."""
    device.start()
    device.stop()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
