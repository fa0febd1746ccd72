"""A template store in memory, which tests/contracts compares with DynamoDB, and templates for it."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from operator import attrgetter

import numpy as np

from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.gallery.damaged import may_replace
from facerec.message_base import ObjectRef
from facerec.ports import (
    ChangedIds,
    Changes,
    CollectionThreshold,
    DamagedTemplate,
    Rejection,
    RejectionEntry,
    Template,
    TemplateEntry,
)
from facerec.unknown_records import companion_of

MODEL = "facenet-160-0123456789abcdef"
OTHER_MODEL = "facenet-160-fedcba9876543210"


def make_template(
    number: int, identity: str = "Ada Lovelace", collection: str = "default", model_id: str = MODEL
) -> Template:
    """A template whose id and embedding follow from its number."""
    embedding = np.random.default_rng(number).standard_normal(512).astype(np.float32)
    template_id = f"{number:032x}"
    return Template(
        template_id=template_id,
        collection=collection,
        identity=identity,
        model_id=model_id,
        embedding=embedding / np.linalg.norm(embedding),
        source=f"photo {number}.jpg",
        photo=ObjectRef(bucket="gallery", key=f"{collection}/{template_id}/photo {number}.jpg", size=4321),
        probability=0.9987654321,
        enrolled_at=datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
    )


def of_dimension(dimension: int, template: Template) -> Template:
    """The template with an embedding of this many numbers."""
    embedding = template.embedding[:dimension]
    return replace(template, embedding=embedding / np.linalg.norm(embedding))


def make_rejection(
    number: int, identity: str = "Ada Lovelace", collection: str = "default", model_id: str = MODEL
) -> Rejection:
    """A rejection of the face that the template of this number has."""
    return Rejection(
        rejection_id=f"{number:032x}",
        collection=collection,
        identity=identity,
        model_id=model_id,
        embedding=make_template(number).embedding,
        source=f"photo {number}.jpg",
        rejected_at=datetime(2026, 3, 3, 9, 0, 0, 7, tzinfo=UTC),
    )


def make_threshold(value: float = 0.5123) -> CollectionThreshold:
    """A collection's threshold of this value."""
    return CollectionThreshold(
        value=value,
        target_fmr=1e-3,
        fmr=0.0009765625,
        impostor_pairs=10240,
        source="templates of 144 people",
        calibrated_at=datetime(2026, 3, 2, 8, 0, 0, 5, tzinfo=UTC),
    )


class InMemoryTemplateStore:
    """`TemplateStore` in a dictionary, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self, kept_changes: int = 10_000) -> None:
        self._lock = threading.Lock()
        self._kept_changes = kept_changes
        self._log: defaultdict[str, dict[int, set[str]]] = defaultdict(dict)
        self._templates: defaultdict[str, dict[str, Template]] = defaultdict(dict)
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._thresholds: dict[tuple[str, str], CollectionThreshold | None] = {}
        self._rejections: defaultdict[str, dict[str, Rejection]] = defaultdict(dict)
        self.outage: FacerecError | None = None

    def add(self, template: Template) -> None:
        """Add one template, also in place of a damaged one; raises `AlreadyEnrolled`."""
        with self._lock:
            self._check()
            collection = self._templates[template.collection]
            existing = collection.get(template.template_id)
            if existing is not None and not may_replace(existing, template):
                raise AlreadyEnrolled(existing.identity, existing.template_id)
            collection[template.template_id] = template
            self._changed(template.collection, {template.template_id})

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many there were."""
        with self._lock:
            self._check()
            popped = [self._templates[collection].pop(identifier, None) for identifier in template_ids]
            removed = len(popped) - popped.count(None)
            if removed:
                self._changed(collection, set(template_ids))
            return removed

    def reassign(self, collection: str, template_ids: Sequence[str], identity: str) -> int:
        """Give templates to a person; returns how many there were."""
        with self._lock:
            self._check()
            own = self._templates[collection]
            found = [identifier for identifier in dict.fromkeys(template_ids) if identifier in own]
            for identifier in found:
                own[identifier] = replace(own[identifier], identity=identity)
            if found:
                self._changed(collection, set(found))
            return len(found)

    def entries(self, collection: str, after: str = "", at_once: int | None = None) -> Iterator[TemplateEntry]:
        """Yield the templates after an id without their embeddings, in the order of their ids."""
        del at_once
        return (_entry(template) for template in self.templates(collection) if template.template_id > after)

    def find(self, collection: str, template_ids: Sequence[str]) -> dict[str, TemplateEntry]:
        """Return those of these templates that there are."""
        return {found.template_id: found for found in self.entries(collection) if found.template_id in template_ids}

    def entry(self, collection: str, template_id: str) -> TemplateEntry | None:
        """Return one template without its embedding, if there is one."""
        found = self.template(collection, template_id)
        return None if found is None else _entry(found)

    def forget(self) -> None:
        """Become empty, as a table that was deleted and made again."""
        with self._lock:
            for own in (self._log, self._templates, self._versions, self._thresholds, self._rejections):
                own.clear()

    def version(self, collection: str) -> int:
        """Return the number of changes so far."""
        with self._lock:
            self._check()
            return self._versions[collection]

    def changed_ids(self, collection: str, since: int) -> ChangedIds | None:
        """Return the ids that were touched since that version, as far back as `kept_changes`."""
        with self._lock:
            self._check()
            return self._touched(collection, since)

    def changes(self, collection: str, since: int) -> Changes | None:
        """Return what has changed since that version, as far back as `kept_changes`."""
        with self._lock:
            self._check()
            found = self._touched(collection, since)
            if found is None:
                return None
            version, touched = found
            stored = self._templates[collection]
            return Changes(
                version, [stored[name] for name in sorted(touched & stored.keys())], sorted(touched - stored.keys())
            )

    def templates(self, collection: str, damaged: list[DamagedTemplate] | None = None) -> Iterator[Template]:
        """Yield every template in the order of their ids; an outage shows at the next one."""
        del damaged  # every one can be read
        with self._lock:
            self._check()
            found = sorted(self._templates[collection].values(), key=attrgetter("template_id"))
        for template in found:
            with self._lock:
                self._check()
            yield template

    def template(self, collection: str, template_id: str) -> Template | None:
        """Return one template, if there is one."""
        with self._lock:
            self._check()
            return self._templates[collection].get(template_id)

    def owners(self, collection: str) -> dict[str, str]:
        """Return the identity of each template by its id."""
        with self._lock:
            self._check()
            return {identifier: each.identity for identifier, each in self._templates[collection].items()}

    def count(self, collection: str) -> int:
        """Return the number of templates."""
        with self._lock:
            self._check()
            return len(self._templates[collection])

    def collections(self) -> list[str]:
        """Return the names of the collections that hold templates."""
        with self._lock:
            self._check()
            return sorted(name for name, own in self._templates.items() if own and companion_of(name) is None)

    def collections_with_unknown(self) -> list[str]:
        """Return the names of the collections that have templates of unknown people."""
        with self._lock:
            self._check()
            stored = [companion_of(name) for name, own in self._templates.items() if own]
            return sorted(name for name in stored if name is not None)

    def copy(self, collection: str, template_ids: Sequence[str], target: str, identity: str) -> int:
        """Copy templates to a person of another collection; returns how many were new there."""
        with self._lock:
            self._check()
            own = self._templates[target]
            found = [each for each in self._templates[collection].values() if each.template_id in template_ids]
            new = [replace(each, collection=target, identity=identity) for each in found if each.template_id not in own]
            own.update({each.template_id: each for each in new})
            if new:
                self._changed(target, {each.template_id for each in new})
            return len(new)

    def reject(self, rejection: Rejection) -> None:
        """Add or replace one rejection."""
        with self._lock:
            self._check()
            self._rejections[rejection.collection][rejection.rejection_id] = rejection
            self._changed(rejection.collection, set())

    def rejections(self, collection: str) -> list[Rejection]:
        """Return every rejection in the order of their ids."""
        with self._lock:
            self._check()
            return [found for _, found in sorted(self._rejections[collection].items())]

    def rejection_entries(self, collection: str) -> list[RejectionEntry]:
        """Return every rejection without its embedding."""
        return [
            RejectionEntry(**{name.name: getattr(found, name.name) for name in fields(RejectionEntry)})
            for found in self.rejections(collection)
        ]

    def remove_rejections(self, collection: str, rejection_ids: Sequence[str]) -> int:
        """Remove rejections; returns how many there were."""
        with self._lock:
            self._check()
            own = self._rejections[collection]
            removed = sum(own.pop(each, None) is not None for each in rejection_ids)
            if removed:
                self._changed(collection, set())
            return removed

    def reassign_rejections(self, collection: str, rejection_ids: Sequence[str], identity: str) -> int:
        """Let rejections be about this person; returns how many there were."""
        with self._lock:
            self._check()
            own = self._rejections[collection]
            found = own.keys() & set(rejection_ids)
            for each in found:
                own[each] = replace(own[each], identity=identity)
            if found:
                self._changed(collection, set())
            return len(found)

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """Return the collection's threshold for the model."""
        with self._lock:
            self._check()
            return self._thresholds.get((collection, model_id))

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Replace or remove the collection's threshold for the model."""
        with self._lock:
            self._check()
            self._thresholds[collection, model_id] = threshold
            self._changed(collection, set())

    def _touched(self, collection: str, since: int) -> ChangedIds | None:
        version, log = self._versions[collection], self._log[collection]
        following = range(since + 1, version + 1)
        if since > version or not all(number in log for number in following):
            return None
        return ChangedIds(version, frozenset[str]().union(*(log[number] for number in following)))

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage

    def _changed(self, collection: str, template_ids: set[str]) -> None:
        self._versions[collection] += 1
        self._log[collection][self._versions[collection]] = template_ids
        self._log[collection].pop(self._versions[collection] - self._kept_changes, None)


def _entry(template: Template) -> TemplateEntry:
    return TemplateEntry(**{name.name: getattr(template, name.name) for name in fields(TemplateEntry)})
