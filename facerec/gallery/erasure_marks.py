"""How an object or a message is recognised as one about a person: by names and template ids in it. Pure."""

import csv
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from facerec.erasure_records import ErasureRecord
from facerec.message_base import DEFAULT_COLLECTION

_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class Marks:
    """The texts that mark something as about the erased people of a collection."""

    collection: str
    texts: frozenset[str]
    everyone: bool
    _needles: tuple[bytes, ...]

    @classmethod
    def of(cls, record: ErasureRecord) -> "Marks":
        """Return the marks of an erasure: the names, and the template ids in both forms."""
        ids = [form for each in record.template_ids for form in (each, str(UUID(each)))] if record.names else []
        texts = frozenset([*record.names, *ids])
        # JSON may have a name with or without escapes.
        needles = {form for text in texts for form in (text.encode(), json.dumps(text)[1:-1].encode())}
        return cls(record.collection, texts, record.everyone, tuple(sorted(needles)))

    @property
    def empty(self) -> bool:
        """Whether nothing is about them: single photos were removed, and no person."""
        return not self.everyone and not self.texts

    def mentioned(self, body: bytes) -> bool:
        """Whether the body is about one of them: a text of it is a mark as a whole, in the same collection.

        A body without a collection, such as a bare name, counts as one of this collection.
        """
        if not self.everyone and not any(needle in body for needle in self._needles):
            return False
        return any(self._is_about(part) for part in _parts(body))

    def without(self, body: bytes) -> bytes:
        """Return a list of many results, one in a line, without those that are about them; empty if nothing is left."""
        lines = body.splitlines(keepends=True)
        return b"".join(line for line in lines if not self.mentioned(line)) if len(lines) > 1 else b""

    def _is_about(self, part: Any) -> bool:
        if isinstance(part, dict):
            collection = part.get("collection", DEFAULT_COLLECTION if "request_id" in part else self.collection)
            if collection != self.collection:
                return False
            if self.everyone and not {"collection", "request_id"}.isdisjoint(part):
                return True
        return not self.texts.isdisjoint(_texts(part))


def request_of(key: str) -> UUID | None:
    """Return the request that an object belongs to, by its key; `None` for another object."""
    head, slash, _ = key.partition("/")
    try:
        return uuid.UUID(head) if slash and len(head) == _UUID_LENGTH else None
    except ValueError:
        return None


def _parts(body: bytes) -> Iterator[Any]:
    """Yield what the body consists of: one JSON document, or lines of JSON, CSV or plain text."""
    text = body.decode(errors="replace")
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield line.strip()
            yield from next(csv.reader(io.StringIO(line)), [])


def _texts(part: Any) -> Iterator[str]:
    """Yield every text of decoded JSON, however deep; its nesting is bounded by the decoder."""
    waiting = [part]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
