"""What the emulated EC2 and the queues show while a benchmark runs, looked at from outside."""

import threading
import time
from types import TracebackType
from typing import Self

import boto3

from benchmarks.system import System
from facerec.local.ec2_host import emulated_ec2, running_instances

_LOOK_SECONDS = 0.1


class FleetWatch:
    """Counts pending and running instances ten times a second, in a thread of its own; a context manager."""

    def __init__(self, system: System) -> None:
        self._ec2 = emulated_ec2(system.environ)
        self._prefix = system.environ.get("FACEREC_PREFIX", "facerec")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[tuple[float, int]] = []
        """(`time.monotonic()`, instances)."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def most(self) -> int:
        """The most instances at once."""
        return max((count for _, count in self.seen), default=0)

    def zero_after(self, moment: float, timeout_seconds: float) -> float:
        """Seconds from `moment` (of `time.monotonic()`) until there are none and stay none for two seconds.

        Raises `TimeoutError` when that does not come.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            busy = [at for at, count in self.seen if count > 0 and at >= moment]
            since = busy[-1] if busy else moment
            if self.seen and self.seen[-1][1] == 0 and time.monotonic() - since > 2:  # noqa: PLR2004 - as promised
                return since - moment
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(f"instances still run {timeout_seconds:g} s after the last answer")

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                count = len(running_instances(self._ec2, self._prefix, pending=True))
            except Exception:  # noqa: BLE001, S112 - the emulator may be frozen on purpose
                continue
            self.seen.append((time.monotonic(), count))


def queue_counts(system: System, queue: str) -> tuple[int, int]:
    """Messages that are visible and in flight in a queue."""
    sqs = boto3.Session(
        aws_access_key_id=system.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=system.environ["AWS_SECRET_ACCESS_KEY"],
        region_name=system.environ["AWS_DEFAULT_REGION"],
    ).client("sqs", endpoint_url=system.environ["AWS_ENDPOINT_URL"])
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]  # type: ignore[arg-type] # literals
    return int(attributes[names[0]]), int(attributes[names[1]])  # type: ignore[index] # as above
