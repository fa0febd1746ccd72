"""Several queues at once: each has a receive of its own open, so that no queue waits for the long poll of another."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class OpenReceives(Generic[T]):
    """At most one open receive per queue, each in a thread; for one thread, Celery's, which delivers the messages.

    `receive(queue, most)` returns up to so many messages, and raises nothing. It runs in the threads.
    """

    def __init__(self, receive: Callable[[str, int], Sequence[T]]) -> None:
        self._receive = receive
        self._open: dict[str, Future[Sequence[T]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, queues: Sequence[str], most: int) -> None:
        """Open a receive of up to `most` messages from each queue that has none."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(len(queues), "receive")
        for queue in queues:
            if queue not in self._open:
                self._open[queue] = self._threads.submit(self._receive, queue, most)

    def answered(self, seconds: float | None) -> list[tuple[str, T]]:
        """Return the messages of the receives that have ended, each with its queue; waits for the first one so long."""
        ended = wait(self._open.values(), seconds, FIRST_COMPLETED).done
        queues = [queue for queue, receive in self._open.items() if receive in ended]
        return [(queue, message) for queue in queues for message in self._open.pop(queue).result()]

    def __len__(self) -> int:
        """How many receives are open, or have an answer that `answered` has not returned."""
        return len(self._open)

    def stop(self) -> None:
        """Wait for the open receives to end; their messages stay in flight."""
        if self._threads is not None:
            self._threads.shutdown()
        self._threads = None
        self._open.clear()
