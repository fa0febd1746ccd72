"""Sessions in memory; tests/contracts compares them with DynamoDB."""

import threading

from facerec.session_records import Session


class InMemorySessions:
    """`Sessions` in a dictionary, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self.outage: Exception | None = None
        self.reads: list[str] = []
        """The hashes that `get` was asked for."""

    def get(self, token_hash: str) -> Session | None:
        with self._lock:
            self.reads.append(token_hash)
            self._reach()
            return self._sessions.get(token_hash)

    def add(self, session: Session) -> None:
        with self._lock:
            self._reach()
            self._sessions[session.token_hash] = session

    def remove(self, token_hash: str) -> None:
        with self._lock:
            self._reach()
            self._sessions.pop(token_hash, None)

    def _reach(self) -> None:
        if self.outage is not None:
            raise self.outage
