"""Clients take turns for a few places."""

import threading

from facerec.processes.addresses import poll_until
from facerec.web.turns import Turns


class Waiting:
    """Threads that wait for a place, in the order in which they began, and who got one."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []
        self.threads: list[threading.Thread] = []

    def add(self, client: str) -> None:
        """Begin to wait, behind those that wait already."""
        before = self.turns.waiting

        def wait() -> None:
            assert self.turns.acquire(client, 30)
            self.served.append(client)

        self.threads.append(threading.Thread(target=wait))
        self.threads[-1].start()
        assert poll_until(lambda: self.turns.waiting > before, 10)

    def release(self) -> None:
        """Give a place back, and wait until it is taken."""
        before = len(self.served)
        self.turns.release()
        assert poll_until(lambda: len(self.served) > before, 10)

    def end(self) -> None:
        """Wait for the threads."""
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


def test_turns_alternate_between_clients() -> None:
    """A client that came later waits for one place and not for all uploads before its own."""
    turns = Turns(1)
    assert turns.acquire("greedy", 0)
    waiting = Waiting(turns)
    for client in ("greedy", "greedy", "greedy", "later", "later", "third"):
        waiting.add(client)
    for _ in waiting.threads:
        waiting.release()
    waiting.end()
    assert waiting.served == ["greedy", "later", "third", "greedy", "later", "greedy"]


def test_turns_give_as_many_places_as_there_are() -> None:
    """A client alone takes all; a wait that timed out takes none."""
    turns = Turns(2)
    assert turns.acquire("a", 0)
    assert turns.acquire("a", 0)
    assert not turns.acquire("a", 0)
    assert not turns.acquire("b", 0)
    turns.release()
    assert turns.acquire("b", 0)
    turns.release()
    turns.release()
    assert [turns.acquire("a", 0) for _ in range(3)] == [True, True, False]
