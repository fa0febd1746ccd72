"""The sessions of the pages, one item each in the table of people, which removes them when they expire."""

from datetime import datetime
from typing import Any

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, expiring
from facerec.session_records import Session

log = structlog.get_logger(__name__)

_KIND = "session"


class DynamoSessions:
    """`Sessions` on DynamoDB."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._table = Table(clients, table)

    def get(self, token_hash: str) -> Session | None:
        """Read the item consistently; None, with a warning, if it cannot be read."""
        with translated("read a session"):
            item = self._table.item(self._table.key(_KIND, token_hash))
        return _parse(item) if item else None

    def add(self, session: Session) -> None:
        """Write the item."""
        item = self._table.key(_KIND, session.token_hash) | {
            "key_id": {"S": session.key_id},
            "proof": {"S": session.proof},
            "created": {"S": session.created_at.isoformat()},
            "until": {"S": session.expires_at.isoformat()},
        }
        with translated("begin a session"):
            self._table.put(item | expiring(session.expires_at))

    def remove(self, token_hash: str) -> None:
        """Delete the item."""
        with translated("end a session"):
            self._table.delete(self._table.key(_KIND, token_hash))


def _parse(item: Any) -> Session | None:
    try:
        return Session(
            token_hash=item["item"]["S"],
            key_id=item["key_id"]["S"],
            proof=item["proof"]["S"],
            created_at=datetime.fromisoformat(item["created"]["S"]),
            expires_at=datetime.fromisoformat(item["until"]["S"]),
        )
    except (KeyError, ValueError) as exc:
        log.warning("session_unreadable", reason=f"{type(exc).__name__}: {exc}")
        return None
