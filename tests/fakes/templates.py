"""A template store in memory, held to the real one's behaviour by tests/contracts."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter

from facerec.errors import AlreadyEnrolled
from facerec.ports import Template


class InMemoryTemplateStore:
    """`TemplateStore` in a dictionary, safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._templates: defaultdict[str, dict[str, Template]] = defaultdict(dict)
        self._versions: defaultdict[str, int] = defaultdict(int)

    def add(self, template: Template) -> None:
        """Add one template; raises `AlreadyEnrolled`."""
        with self._lock:
            collection = self._templates[template.collection]
            existing = collection.get(template.template_id)
            if existing is not None:
                raise AlreadyEnrolled(existing.identity, existing.template_id)
            collection[template.template_id] = template
            self._versions[template.collection] += 1

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many were there."""
        with self._lock:
            there = [self._templates[collection].pop(identifier, None) for identifier in template_ids]
            removed = len(there) - there.count(None)
            self._versions[collection] += bool(removed)
            return removed

    def version(self, collection: str) -> int:
        """Return the number of changes so far."""
        with self._lock:
            return self._versions[collection]

    def templates(self, collection: str) -> Iterator[Template]:
        """Return every template, sorted by identity and id."""
        with self._lock:
            found = list(self._templates[collection].values())
        return iter(sorted(found, key=attrgetter("identity", "template_id")))

    def collections(self) -> list[str]:
        """Return the names of the collections that hold templates."""
        with self._lock:
            return sorted(name for name, templates in self._templates.items() if templates)
