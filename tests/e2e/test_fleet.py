"""The elastic fleet on this machine goes from zero instances and back, and loses nothing when parts are killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facerec.local.ec2_host import emulated_ec2, running_instances
from facerec.processes.addresses import poll_until
from tests.support.load import Reply, Upload, upload_all
from tests.support.local_system import FleetWatch, LocalSystem, queue_counts
from tests.support.processes import CHECKOUT

pytestmark = pytest.mark.timeout(400)

MOST = 2
ZERO_SECONDS = 90
LONG = 160
"""Uploads of a burst that lasts until something is killed: some seconds of work for two workers."""


@pytest.fixture(scope="module")
def elastic(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A system at zero instances that goes back to zero at once, with the sample people enrolled.

    Its target is so short that thirty uploads are worth more instances than it may have.
    """
    environ = {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_AUTOSCALE__MAX_INSTANCES": str(MOST),
        "FACEREC_AUTOSCALE__COOLDOWN_SECONDS": "0",
        "FACEREC_AUTOSCALE__TARGET_SECONDS": "0.2",
    }
    with LocalSystem(tmp_path_factory.mktemp("elastic"), workers=None, environ=environ) as running:
        running.run("enrol", "--folder", "examples/gallery")
        yield running


def burst(system: LocalSystem, count: int) -> list[Reply]:
    """Upload at once, each photo under a name of its own."""
    photo = (CHECKOUT / "examples" / "probes" / "image_01.jpg").read_bytes()
    return upload_all(system.url, [Upload(f"{n:03d}.jpg", photo) for n in range(count)], count)


def assert_all_right(replies: list[Reply]) -> None:
    """Every client got the answer to its own photo."""
    assert [r.text.strip() for r in replies] == [f"{r.filename}: face detected - Barack Obama" for r in replies]


def assert_at_zero(system: LocalSystem, watch: FleetWatch) -> None:
    """No instance is left, the cap was reached and kept, and the queues are empty."""
    watch.zero_after(time.monotonic(), ZERO_SECONDS)
    assert watch.most() == MOST
    assert queue_counts(system, "facerec-req-queue") == (0, 0)
    assert queue_counts(system, "facerec-req-queue-dlq") == (0, 0)
    assert queue_counts(system, "facerec-resp-queue") == (0, 0)


def test_fleet_answers_bursts_from_zero_and_returns_to_zero(elastic: LocalSystem) -> None:
    """The second burst is answered by instances of the warm pool."""
    for _ in range(2):
        with FleetWatch(elastic) as watch:
            watch.zero_after(time.monotonic(), ZERO_SECONDS)
            assert_all_right(burst(elastic, 30))
            assert_at_zero(elastic, watch)


def test_killed_worker_and_autoscaler_lose_nothing(elastic: LocalSystem) -> None:
    """The instance and the supervisor start them again, and the clients only wait longer."""
    replies: list[Reply] = []
    uploads = threading.Thread(target=lambda: replies.extend(burst(elastic, LONG)))
    with FleetWatch(elastic) as watch:
        uploads.start()
        assert poll_until(lambda: queue_counts(elastic, "facerec-req-queue")[1] > 0, 60)
        for words in ("facerec.cli worker", "facerec.cli autoscale"):
            for pid in elastic.processes(words):
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
        uploads.join(200)
        assert_all_right(replies)
        assert len(replies) == LONG
        assert_at_zero(elastic, watch)


def test_instance_stopped_by_an_operator_finishes_its_tasks(elastic: LocalSystem) -> None:
    """Its tasks in flight are answered before it ends."""
    replies: list[Reply] = []
    uploads = threading.Thread(target=lambda: replies.extend(burst(elastic, LONG)))
    ec2 = emulated_ec2(elastic.environ)
    with FleetWatch(elastic) as watch:
        uploads.start()
        assert poll_until(lambda: queue_counts(elastic, "facerec-req-queue")[1] > 0, 60)
        ec2.stop_instances(InstanceIds=[min(running_instances(ec2, "facerec"))])
        uploads.join(200)
        assert_all_right(replies)
        assert_at_zero(elastic, watch)
