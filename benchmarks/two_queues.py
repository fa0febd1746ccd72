"""How soon a worker takes a photo beside the faces queue, and how often it asks SQS, on this machine's emulated AWS.

    python -m benchmarks.two_queues --photos 100

The last line is one JSON object. `photos` is a worker that takes from the request queue alone, `at_once` one that takes
from both queues, `in_turn` one that does it as kombu does: one queue after the other. Each has the time from sending a
photo to an idle worker until its task would begin, and the receives per second without any message.
"""

import argparse
import json
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from kombu import Connection
from kombu.transport import SQS

from facerec.celery import CeleryTaskQueue, configuration
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.local.emulator import EmulatorKind
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.support.emulated import emulated_aws
from tests.support.load import percentile

_in_turn: Any = SQS.Channel.drain_events
"""What ours replaces."""
IDLE_SECONDS = 15
LONGEST_PAUSE_SECONDS = 1.5
"""Longer than a long poll: photos come at any moment of one."""


class Consumer:
    """Celery's loop on a channel, in a thread; the tasks end at once."""

    def __init__(self, settings: Settings, *, in_turn: bool = False) -> None:
        self.gate = ConsumerGate()
        self.taken: Queue[str] = Queue()
        self.receives = 0
        conf = configuration(settings)
        options = conf["broker_transport_options"] | {"consumer_gate": self.gate}
        self._connection = _connect(conf["broker_transport"], options)
        self._channel = self._connection.channel()
        if in_turn:
            self._channel.drain_events = lambda **options: _in_turn(self._channel, **options)
        for queue in settings.worker_queues:
            self._channel.basic_consume(queue, False, self._take, queue)
        self._channel.basic_qos(prefetch_count=settings.worker.concurrency)
        self._channel.sqs().meta.events.register("before-call.sqs.ReceiveMessage", self._count)
        self._stopping = threading.Event()
        self._loop = threading.Thread(target=self._run)
        self._loop.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connection.drain_events(timeout=2)
            except (Empty, TimeoutError):
                continue

    def _take(self, message: Any) -> None:
        message.ack()
        self.taken.put(message.headers["id"])

    def _count(self, **_: object) -> None:
        self.receives += 1

    def stop(self) -> None:
        """End the loop."""
        self._stopping.set()
        self.gate.leave()
        self._loop.join()
        self._channel.sqs().meta.events.unregister("before-call.sqs.ReceiveMessage", self._count)
        self._connection.close()


def _connect(transport: str, options: dict[str, Any]) -> Any:
    return Connection("sqs://", transport=transport, transport_options=options)


@contextmanager
def running(consumer: Consumer) -> Iterator[Consumer]:
    """Stop it at the end."""
    try:
        yield consumer
    finally:
        consumer.stop()


def measure(consumer: Consumer, settings: Settings, photos: int) -> dict[str, float]:
    """Count receives without messages, then send photos one by one at random moments."""
    before = consumer.receives
    time.sleep(IDLE_SECONDS)
    per_second = (consumer.receives - before) / IDLE_SECONDS
    sender = CeleryTaskQueue(settings)
    taken_ms = []
    for number in range(photos):
        time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - no secret
        request = RecognitionRequest(
            request_id=uuid.uuid4(),
            input=ObjectRef(bucket=settings.input_bucket, key="k", size=1),
            filename=f"{number}.jpg",
            submitted_at=datetime.now(UTC),
        )
        started = time.perf_counter()
        sender.submit(request)
        if consumer.taken.get(timeout=60) != str(request.request_id):
            raise RuntimeError("another task came")
        taken_ms.append((time.perf_counter() - started) * 1000)
    return {
        "receives_per_s": round(per_second, 2),
        "p50_ms": round(percentile(taken_ms, 50), 1),
        "p95_ms": round(percentile(taken_ms, 95), 1),
    }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100)
    photos = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder, emulated_aws(EmulatorKind.MINISTACK, Path(folder)) as aws:
        alone = aws.settings
        both = alone.changed(edge=EdgeSettings(enabled=True))
        figures = {}
        for name, settings, in_turn in (
            ("photos", alone, False),
            ("at_once", both, False),
            ("in_turn", both, True),
        ):
            with running(Consumer(settings, in_turn=in_turn)) as consumer:
                figures[name] = measure(consumer, settings, photos)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
