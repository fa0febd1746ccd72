"""When the status is published, and what the file of it says."""

import json
import os
import queue
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from facerec.edge.status import FILE_SECONDS, StatusReport, read_status, write_status
from facerec.edge_messages import status_topic
from facerec.errors import FacerecError
from tests.fakes.link import InMemoryBroker, InMemoryLink
from tests.support.logs import capture_logs

THING = "door-1"
SECONDS = 20


class Watched(InMemoryLink):
    """A link that hands on what is published."""

    def __init__(self, broker: InMemoryBroker, **options: int) -> None:
        super().__init__(broker, THING, **options)
        self.published: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Note it, and send it."""
        self.published.put((topic, payload))
        return super().publish(topic, payload)


@pytest.fixture
def broker() -> InMemoryBroker:
    """A broker that runs."""
    return InMemoryBroker()


@pytest.fixture
def link(broker: InMemoryBroker) -> Watched:
    """A link that has not started."""
    return Watched(broker)


def report(link: Watched, every_seconds: float = 3600) -> StatusReport:
    """A report whose status is its number."""
    numbers = iter(range(1000))
    return StatusReport(link, THING, every_seconds, lambda: {"number": next(numbers)})


def published(link: Watched) -> int:
    """The number of the next status."""
    topic, payload = link.published.get(timeout=SECONDS)
    assert topic == status_topic(THING)
    return int(json.loads(payload)["number"])


def test_status_is_published_at_start_on_change_and_at_stop(link: Watched) -> None:
    """And logged each time."""
    link.start()
    with capture_logs() as logs:
        status = report(link)
        status.start()
        assert published(link) == 0
        status.changed()
        assert published(link) == 1
        status.stop(SECONDS)
        assert published(link) == 2
    assert [record["number"] for record in logs if record["event"] == "edge_status"] == [0, 1, 2]


def test_status_is_published_periodically(link: Watched) -> None:
    """Without a reason."""
    link.start()
    status = report(link, every_seconds=0.01)
    status.start()
    assert [published(link) for _ in range(4)] == [0, 1, 2, 3]
    status.stop(SECONDS)


def test_first_status_waits_for_the_connection(link: Watched) -> None:
    """Nothing is lost at the start."""
    status = report(link)
    status.start()
    link.start()
    assert published(link) == 0
    status.stop(SECONDS)


def test_status_that_was_not_sent_is_counted(link: Watched, broker: InMemoryBroker) -> None:
    """It is not sent later; the next one says how many there were."""
    link.start()
    status = report(link)
    status.start()
    published(link)
    broker.stop()
    status.changed()
    published(link)
    broker.start()
    status.stop(SECONDS)
    assert [json.loads(payload)["statuses_not_sent"] for _, payload in broker.received] == [0, 1]


def test_stop_does_not_wait_longer_than_its_grace(link: Watched, broker: InMemoryBroker) -> None:
    """Without an acknowledgement."""
    link.start()
    broker.answering = False
    status = report(link)
    status.start()
    published(link)
    status.stop(0.01)


def test_refused_status_is_logged_once(broker: InMemoryBroker) -> None:
    """As by a policy that does not allow the topic."""
    link = Watched(broker, max_message_bytes=1)
    link.start()
    with capture_logs() as logs:
        status = report(link)
        status.start()
        published(link)
        status.stop(SECONDS)
    assert [record["topic"] for record in logs if record["log_level"] == "error"] == [status_topic(THING)]


@pytest.mark.parametrize("state", ["running", "degraded"])
def test_status_file_of_a_working_component_is_read(tmp_path: Path, state: str) -> None:
    """The last status that was written."""
    for number in range(2):
        write_status(tmp_path, {"state": state, "at": "now", "number": number})
    assert read_status(tmp_path)["number"] == 1


def test_status_file_shows_that_no_component_works(tmp_path: Path) -> None:
    """None was written, the component has stopped, or it no longer writes."""
    with pytest.raises(FacerecError, match=r"no component has written .*FACEREC_EDGE__STATE_DIR"):
        read_status(tmp_path)
    write_status(tmp_path, {"state": "stopped", "at": "noon"})
    with pytest.raises(FacerecError, match="the component is stopped, since noon"):
        read_status(tmp_path)
    write_status(tmp_path, {"state": "running", "at": "noon"})
    [file] = tmp_path.iterdir()
    old = time.time() - 4 * FILE_SECONDS
    os.utime(file, (old, old))
    with pytest.raises(FacerecError, match="has not written its status since noon"):
        read_status(tmp_path)
