"""Loads a collection into an index, from a snapshot or from the store, and applies the changes since."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from facerec.gallery.damaged import log_fields, separate
from facerec.gallery.published import PublishedSnapshot, PublishedSnapshots
from facerec.gallery.snapshots import GallerySnapshots, SavedGallery
from facerec.ports import Changes, DamagedTemplate, Template, TemplateStore
from model.index.norms import normalised
from model.index.vectors import Float32Vectors, RowsDamaged
from model.matching import Columns, GalleryIndex, Match
from model.means import PersonMeans

log = structlog.get_logger(__name__)

Matching = Literal["best", "mean"]

_RENEWED_AT_MOST = 100_000  # templates; about a second
_READ_AT_ONCE = 4096  # templates held beside the index while a collection is read: some 20 MB at 512 dimensions


@dataclass(frozen=True, slots=True)
class LoadedCollection:
    """A collection in memory, at a version of the store."""

    version: int
    index: GalleryIndex
    unsaved: int = 0
    """How many templates differ from the collection's snapshot."""
    threshold: float | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)
    """The reasons of the damaged templates, which are not in the index, by id."""
    rejections: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """The faces (K, D), L2-normalised, that are not a person, by the person."""
    lingering: bool = False
    """Whether removed rows may be left: in a block of the index, or in the deleted file that it reads from."""
    means: PersonMeans | None = None
    """For matching by means."""

    def search(self, queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        """Return the nearest people of faces (F, D); raises `RowsDamaged` as the index does."""
        if self.means is None:
            return self.index.search(queries, limit)
        return self.means.search(self.index, queries, limit)


@dataclass(slots=True)
class _LeftOut:
    """What was left out of some templates."""

    models: Counter[str] = field(default_factory=Counter)
    damaged: list[DamagedTemplate] = field(default_factory=list)


class CollectionLoader:
    """Loads collections from the machine's snapshot, else from the published one, else from the store.

    The changes since a snapshot come from the store. Templates of other models than `model_id` are left out, and so are
    damaged ones: `dimension` is that of the model. A removal deletes the machine's snapshots that contain the template.
    The means, if `matching` needs them, are in no snapshot: they are computed at the start.
    """

    def __init__(
        self,
        store: TemplateStore,
        model_id: str,
        *,
        dimension: int,
        snapshots: GallerySnapshots | None = None,
        published: PublishedSnapshots | None = None,
        matching: Matching = "best",
    ) -> None:
        self._store = store
        self._model_id = model_id
        self._dimension = dimension
        self._snapshots = snapshots
        self._published = published
        self._matching = matching

    def load(self, collection: str) -> LoadedCollection:
        """Return the collection as it is now; raises `Transient`."""
        saved = self._snapshots.load(collection) if self._snapshots else None
        if saved is not None:
            try:
                return self._advance(collection, self._checked(collection, saved))
            except RowsDamaged as exc:
                log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
                self._discard(collection)
        return self._load_again(collection)

    def bring_up_to_date(self, collection: str, known: LoadedCollection) -> LoadedCollection:
        """Return the collection as it is now, `known` itself if nothing has changed; raises `Transient`."""
        if known.index.damaged:
            log.error("gallery_snapshot_damaged", collection=collection)
            self._discard(collection)
            return self._load_again(collection)
        if self._store.version(collection) != known.version:
            return self._advance(collection, known)
        return self._save(collection, known)

    def delete_stale_snapshots(self, loaded: Collection[str]) -> None:
        """Delete the machine's snapshots of other collections than `loaded` that have a removed template."""
        if self._snapshots is not None:
            self._snapshots.delete_stale(self._store, loaded)

    def clean_files(self, loaded: Mapping[str, int]) -> Mapping[str, int] | None:
        """Return `GallerySnapshots.clean_files`; without snapshots there are no files."""
        return {} if self._snapshots is None else self._snapshots.clean_files(loaded)

    def _load_again(self, collection: str) -> LoadedCollection:
        """Load the collection without the machine's snapshot."""
        return self._load_published(collection) or self._read(collection)

    def _load_published(self, collection: str) -> LoadedCollection | None:
        """Load the published snapshot, if there is one that the recorded changes reach; the next refresh saves it."""
        if self._published is None or self._store.version(collection) == 0:
            return None
        changes: Changes | None = None

        def reached(snapshot: PublishedSnapshot) -> bool:
            nonlocal changes
            changes = self._store.changes(collection, snapshot.version)
            if changes is None:
                log.warning("gallery_snapshot_outdated", collection=collection, version=snapshot.version)
            return changes is not None

        saved = self._published.load(collection, reached)
        if saved is None or changes is None:
            return None
        try:
            known = self._checked(collection, saved)
        except RowsDamaged as exc:
            log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc), published=True)
            return None
        self._discard(collection, saved.version)
        return replace(self._apply(collection, known, changes), unsaved=len(known.index))

    def _checked(self, collection: str, saved: SavedGallery) -> LoadedCollection:
        """Return what was loaded from a snapshot; raises `RowsDamaged` if it does not fit the model."""
        index, damaged = saved.index, saved.damaged
        if len(index) and index.dimension != self._dimension:
            raise RowsDamaged(f"its embeddings have {index.dimension} numbers, not {self._dimension}")
        if damaged:
            self._warn_of_damaged(collection, [DamagedTemplate(*each) for each in damaged.items()], len(damaged))
        if index.identities < len(index.names):  # an earlier release kept the names of removed people
            self._discard(collection)
            return LoadedCollection(saved.version, index, len(index), damaged=damaged)
        return LoadedCollection(saved.version, index, damaged=damaged)

    def _advance(self, collection: str, known: LoadedCollection) -> LoadedCollection:
        """Apply the changes since to the known index, or load the collection if the store no longer has them."""
        changes = self._store.changes(collection, known.version)
        if changes is None:
            return self._load_again(collection)
        return self._save(collection, self._apply(collection, known, changes))

    def _apply(self, collection: str, known: LoadedCollection, changes: Changes) -> LoadedCollection:
        threshold = self._threshold(collection, changes.version)  # may fail, so before the index changes
        rejections = self._rejections(collection, changes.version)
        found = _LeftOut(damaged=list(changes.damaged))
        added = self._columns(changes.added, found)
        self._warn_of_other_models(collection, found.models)
        left_out = {each.template_id: each.reason for each in found.damaged}
        touched = {*changes.removed, *(template.template_id for template in changes.added)}
        damaged = {name: reason for name, reason in known.damaged.items() if name not in touched} | left_out
        if left_out:
            self._warn_of_damaged(collection, found.damaged, len(damaged))
        encoded = len(known.index.blocks) > 1
        index, unsaved = known.index, known.unsaved + len(changes.added) + len(changes.removed)
        people = {*filter(None, map(index.identity_of, touched)), *added[1]}
        gone = index.remove(sorted(touched.difference(added[2])))
        # A template that was read with the collection may come a second time, unchanged.
        renamed = any(index.identity_of(own) not in {None, name} for own, name in zip(added[2], added[1], strict=True))
        index.add(*added)
        if gone or renamed:
            self._discard(collection, changes.version)
            unsaved = len(index)
        lingering = known.lingering or (gone > 0 and encoded)
        means = self._renewed_means(index, known.means, people)
        return LoadedCollection(
            changes.version, index, unsaved, threshold, damaged, rejections, lingering=lingering, means=means
        )

    def _read(self, collection: str) -> LoadedCollection:
        # The version is read first: a change in between is read now, and a second time at the next refresh.
        version = self._store.version(collection)
        found = _LeftOut()
        templates = self._store.templates(collection, found.damaged) if version > 0 else iter(())
        pieces = (self._columns(piece, found) for piece in iter(lambda: list(islice(templates, _READ_AT_ONCE)), []))
        files = self._snapshots or self._published
        index = GalleryIndex.of_pieces(pieces, files.spool() if files else Float32Vectors)
        self._warn_of_other_models(collection, found.models)
        damaged = {each.template_id: each.reason for each in found.damaged}
        if damaged:
            self._warn_of_damaged(collection, found.damaged, len(damaged))
        self._discard(collection, version or None)  # a table that was made again has no version
        # Templates of other models do not count: a worker that starts from a snapshot could not warn of them.
        threshold = self._threshold(collection, version)
        rejections = self._rejections(collection, version)
        unsaved = found.models[self._model_id]
        means = self._renewed_means(index)
        loaded = LoadedCollection(version, index, unsaved, threshold, damaged, rejections, means=means)
        return self._save(collection, loaded)

    def _renewed_means(
        self, index: GalleryIndex, means: PersonMeans | None = None, people: Collection[str] = ()
    ) -> PersonMeans | None:
        """Return the means after a change of these people's templates, or of all people without earlier ones."""
        if self._matching == "best":
            return None
        if means is None:
            files = self._snapshots or self._published
            return PersonMeans(index, files.spool() if files else Float32Vectors)
        means.renew(index, people)
        return means

    def _discard(self, collection: str, before: int | None = None) -> None:
        if self._snapshots is not None:
            self._snapshots.discard(collection, before)

    def _threshold(self, collection: str, version: int) -> float | None:
        own = self._store.threshold(collection, self._model_id) if version > 0 else None
        return None if own is None else own.value

    def _rejections(self, collection: str, version: int) -> dict[str, NDArray[np.float32]]:
        """Return the rejections of the model in use; one with an unusable embedding is left out with a warning."""
        stored = self._store.rejections(collection) if version > 0 else []
        own = [each for each in stored if each.model_id == self._model_id]
        usable = [
            each
            for each in own
            if each.embedding.shape == (self._dimension,) and normalised(each.embedding[None]).all()
        ]
        if len(usable) < len(own):
            damaged = [each.rejection_id for each in own if each not in usable]
            log.warning("rejections_damaged", collection=collection, rejections=damaged)
        return {
            identity: np.stack([each.embedding for each in usable if each.identity == identity])
            for identity in {each.identity for each in usable}
        }

    def _save(self, collection: str, loaded: LoadedCollection) -> LoadedCollection:
        """Save a snapshot if enough has changed, or if removed rows are left; the index then reads from the new one."""
        if self._snapshots is None:
            return self._renewed(loaded)
        if not self._snapshots.due(collection, loaded.unsaved, at_once=loaded.lingering):
            return loaded
        saved = self._snapshots.save(collection, loaded.version, loaded.index, loaded.damaged)
        if saved is None:
            return replace(self._renewed(loaded), unsaved=0)
        means = self._renewed_means(saved) if loaded.lingering else loaded.means
        return replace(loaded, index=saved, unsaved=0, lingering=False, means=means)

    def _renewed(self, loaded: LoadedCollection) -> LoadedCollection:
        """Make the index again without removed rows, if any are left; not a large one, which would take too long."""
        if not loaded.lingering or len(loaded.index) > _RENEWED_AT_MOST:
            return loaded
        files = self._snapshots or self._published
        index = GalleryIndex.of_pieces(loaded.index.columns(), files.spool() if files else Float32Vectors)
        return replace(loaded, index=index, lingering=False, means=self._renewed_means(index))

    def _columns(self, templates: Sequence[Template], found: _LeftOut) -> Columns:
        """Return the usable templates of the model in use as columns, and add the others to `found`."""
        found.models.update(template.model_id for template in templates)
        own = [template for template in templates if template.model_id == self._model_id]
        usable, embeddings, damaged = separate(own, self._dimension)
        found.damaged += damaged
        found.models[self._model_id] -= len(damaged)
        return embeddings, [template.identity for template in usable], [template.template_id for template in usable]

    def _warn_of_damaged(self, collection: str, damaged: Sequence[DamagedTemplate], count: int) -> None:
        """Log damaged templates that were found now; `count` is the number of all in the collection."""
        log.warning("gallery_templates_damaged", count=count, **log_fields(collection, damaged))

    def _warn_of_other_models(self, collection: str, models: "Counter[str]") -> None:
        others = models.keys() - {self._model_id}
        if others:
            log.warning(
                "gallery_of_another_model",
                collection=collection,
                count=models.total() - models[self._model_id],
                usable=models[self._model_id],
                models=sorted(others),
                model_in_use=self._model_id,
                command=f"facerec gallery rebuild --collection {collection}",
            )
