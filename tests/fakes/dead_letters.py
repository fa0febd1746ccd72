"""A dead-letter queue in memory, with the same contract tests as the one on SQS."""

import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from facerec.dead_letters import DeadLetter


class InMemoryDeadLetterQueue:
    """`DeadLetterReader`, and the writer's `put`."""

    def __init__(self) -> None:
        self._letters: dict[str, DeadLetter] = {}
        self._hidden: set[str] = set()
        self._receipts = itertools.count(1)

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """Add a message like the dead-letter writer."""
        self._add(body, {"reason": reason, "request_id": request_id, "failed_at": failed_at.isoformat()})

    def move(self, body: str) -> None:
        """Add a message like SQS after too many receives."""
        self._add(body, {})

    def _add(self, body: str, attributes: dict[str, str]) -> None:
        letter = DeadLetter(str(uuid.uuid4()), body, datetime.now(UTC), 0, "", attributes)
        self._letters[letter.message_id] = letter

    def count(self) -> int:
        """Return the number of messages."""
        return len(self._letters)

    @contextmanager
    def look(self, limit: int | None = None) -> Iterator[Iterator[DeadLetter]]:
        """Yield each message once; the rest is visible again at the end."""
        taken: list[str] = []
        try:
            yield self._taken(taken, limit)
        finally:
            self._hidden.difference_update(taken)

    def _taken(self, taken: list[str], limit: int | None) -> Iterator[DeadLetter]:
        visible = [letter for letter in self._letters.values() if letter.message_id not in self._hidden]
        for letter in visible[:limit]:
            seen = replace(letter, receives=letter.receives + 1, receipt=f"receipt-{next(self._receipts)}")
            self._letters[letter.message_id] = seen
            self._hidden.add(letter.message_id)
            taken.append(letter.message_id)
            yield seen

    def remove(self, letter: DeadLetter) -> None:
        """Delete one message."""
        self._letters.pop(letter.message_id, None)

    def purge(self) -> None:
        """Delete all messages."""
        self._letters.clear()
