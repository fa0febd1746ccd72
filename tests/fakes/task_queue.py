"""A task queue in memory."""

import threading
from collections.abc import Callable

from facerec.errors import FacerecError
from facerec.messages import RecognitionRequest


class InMemoryTaskQueue:
    """`TaskQueue` that keeps what is submitted, and hands it to `worker` where there is one.

    The worker runs before `submit` returns: the earliest that a result can ever come. While `outage` is set every
    submission raises it.
    """

    def __init__(self, worker: Callable[[RecognitionRequest], object] | None = None) -> None:
        self.requests: list[RecognitionRequest] = []
        self.submitted = threading.Condition()
        self.worker = worker
        self.outage: FacerecError | None = None

    def submit(self, request: RecognitionRequest) -> None:
        """Keep the request, and let the worker work."""
        if self.outage is not None:
            raise self.outage
        with self.submitted:
            self.requests.append(request)
            self.submitted.notify_all()
        if self.worker is not None:
            self.worker(request)

    def await_count(self, count: int, timeout_seconds: float = 10.0) -> list[RecognitionRequest]:
        """The requests, once there are so many."""
        with self.submitted:
            assert self.submitted.wait_for(lambda: len(self.requests) >= count, timeout_seconds)
            return list(self.requests)
