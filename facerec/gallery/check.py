"""Check: photos without a template, templates whose photo is gone, damaged templates, and leftover snapshots.

An enrolment stores the photo before the template, and a removal deletes the photo before the template. So an enrolment
that was interrupted leaves a photo without a template, and an interrupted removal a template without
its photo. A command that is killed right after it published a snapshot leaves older ones, or one with templates that
were removed meanwhile.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from facerec.errors import ObjectMissing
from facerec.gallery.damaged import usable
from facerec.gallery.published import PublishedSnapshot
from facerec.gallery.removal import is_thumbnail, thumbnail_key
from facerec.object_keys import SNAPSHOTS_PREFIX
from facerec.ports import DamagedTemplate, ObjectStore, StoredObject, Template, TemplateStore

_KEY = re.compile(r"(?P<collection>[A-Za-z0-9_.-]{1,64})/(?P<template_id>[0-9a-f]{32})/.+", re.DOTALL)
"""What `enrolment.photo_key` makes; other keys are not ours."""


@dataclass(frozen=True, slots=True)
class LeftoverSnapshot:
    """A published snapshot that is to be deleted; `reason` is part of a sentence."""

    stored: StoredObject
    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check has found."""

    leftovers: list[StoredObject]
    """Photos without a template that are older than the limit; a thumbnail only if its photo is gone."""
    recent: list[StoredObject]
    """Younger ones: an enrolment may be about to store the template."""
    photo_gone: list[Template]
    """Templates whose photo is not in the store."""
    damaged: dict[str, list[DamagedTemplate]] = field(default_factory=dict)
    """The damaged templates of each collection that has any."""
    snapshots: list[LeftoverSnapshot] = field(default_factory=list)
    """Published snapshots with removed templates, and others that no reader uses."""


@dataclass(frozen=True, kw_only=True)
class GalleryCheck:
    """Compares both stores; safe beside enrolments, imports, rebuilds and removals.

    An enrolment stores its photo, and within seconds the template. So a photo without a template is a leftover only
    when it is older than `older_than`. Another enrolment of the same photo makes it young again.
    """

    templates: TemplateStore
    photos: ObjectStore
    bucket: str
    older_than: timedelta
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """Those of known models, as `usable` takes them."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def find(self, collection: str | None = None) -> Findings:
        """Look through one collection, or all of them, also those without a template; raises `Transient`."""
        # The photos are read first: a template that is stored meanwhile is seen.
        keys = self.photos.keys(self.bucket, f"{collection}/" if collection else "")
        by_collection: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
        for key in keys:
            if parts := _KEY.fullmatch(key):
                by_collection[parts["collection"]].setdefault(parts["template_id"], []).append(key)
        names = {collection} if collection else {*by_collection, *self.templates.collections()}
        findings, present = Findings([], [], []), set(keys)
        for name in sorted(names):
            owners = self.templates.owners(name)
            for template_id, found in by_collection[name].items():
                if template_id not in owners:
                    self._sort(found, findings)
            damaged: list[DamagedTemplate] = []
            everything = list(self.templates.templates(name, damaged))
            usable(everything, damaged, self.dimensions)
            if damaged:
                findings.damaged[name] = damaged
            findings.photo_gone.extend(
                template
                for template in everything
                if template.photo is not None and template.photo.key not in present and self._is_gone(template)
            )
        findings.snapshots.extend(self._leftover_snapshots(f"{collection}/" if collection else ""))
        return findings

    def remove_snapshot(self, leftover: LeftoverSnapshot) -> None:
        """Delete a snapshot."""
        self.photos.delete(self.bucket, leftover.stored.key)

    def remove(self, leftover: StoredObject) -> bool:
        """Remove a leftover with its thumbnail, unless it was stored again since; returns whether it is gone.

        Others may remove it, too.
        Only an enrolment of this very photo that falls between the look and the removal, which take milliseconds, loses
        its photo; the next check reports it.
        """
        found = self._describe(leftover.key)
        if found is not None and self._is_recent(found):
            return False
        if parts := _KEY.fullmatch(leftover.key):
            self.photos.delete(self.bucket, thumbnail_key(parts["collection"], parts["template_id"]))
        self.photos.delete(self.bucket, leftover.key)
        return True

    def _leftover_snapshots(self, below: str) -> Iterator[LeftoverSnapshot]:
        newest: dict[tuple[str, str], str] = {}
        keys = self.photos.keys(self.bucket, SNAPSHOTS_PREFIX + below)
        for key in keys:  # sorted, so that the last one counts
            if snapshot := PublishedSnapshot.of_key(key):
                newest[snapshot.collection, snapshot.model_id] = key
        for key in keys:
            snapshot, stored = PublishedSnapshot.of_key(key), self._describe(key)
            if stored is None:
                continue
            if snapshot is None:
                reason = "its name is no snapshot's"
            elif newest[snapshot.collection, snapshot.model_id] != key:
                reason = "a newer one exists"
            else:
                changes = self.templates.changes(snapshot.collection, snapshot.version)
                if changes is None:
                    yield LeftoverSnapshot(stored, "it is too old to be used")
                elif changes.removed:  # a removal deletes snapshots: this one was published while it ran
                    yield LeftoverSnapshot(stored, "templates were removed since")
                continue
            if not self._is_recent(stored):
                yield LeftoverSnapshot(stored, reason)

    def _sort(self, keys: list[str], findings: Findings) -> None:
        for key in [key for key in keys if not is_thumbnail(key)] or keys:
            found = self._describe(key)
            if found is not None:
                (findings.recent if self._is_recent(found) else findings.leftovers).append(found)

    def _is_recent(self, photo: StoredObject) -> bool:
        return photo.stored_at > self.now() - self.older_than

    def _describe(self, key: str) -> StoredObject | None:
        try:
            return self.photos.describe(self.bucket, key)
        except ObjectMissing:
            return None  # a removal was faster

    def _is_gone(self, template: Template) -> bool:
        """Whether the photo is missing and the template is not: an enrolment or a removal may have run meanwhile."""
        if template.photo is None or self.photos.exists(template.photo.bucket, template.photo.key):
            return False
        return self.templates.template(template.collection, template.template_id) is not None
