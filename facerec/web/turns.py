"""Places that clients take in turns, so that the many uploads of one client do not delay the only one of another."""

import threading
from collections import deque


class Turns:
    """A semaphore whose waiting clients get the next place one after the other; safe for many threads."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._queues: dict[str, deque[threading.Event]] = {}
        """The waiting turns of each client, the next client first; without any while a place is free."""

    @property
    def waiting(self) -> int:
        """How many uploads wait for a place."""
        with self._lock:
            return sum(map(len, self._queues.values()))

    def acquire(self, client: str, timeout_seconds: float) -> bool:
        """Take a place, or return False after the time-out; a place must be given back by `release`."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            self._queues.setdefault(client, deque()).append(turn)
        turn.wait(timeout_seconds)
        with self._lock:
            if turn.is_set():
                return True
            queue = self._queues[client]
            queue.remove(turn)
            if not queue:
                del self._queues[client]
            return False

    def release(self) -> None:
        """Give a place back: the next client gets it and goes behind the others."""
        with self._lock:
            if not self._queues:
                self._free += 1
                return
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            queue.popleft().set()
            if queue:
                self._queues[client] = queue
