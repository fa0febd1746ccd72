"""Opens the gallery as the settings say, for workers, functions and commands."""

import socket
from pathlib import Path

from facerec.gallery.cache import GalleryCache
from facerec.gallery.published import PublishedSnapshots
from facerec.gallery.readers import ReaderReporter
from facerec.gallery.snapshots import GallerySnapshots
from facerec.ports import GalleryReaders, ObjectStore, TemplateStore
from facerec.settings import Settings


def published_snapshots(settings: Settings, objects: ObjectStore, model_id: str) -> PublishedSnapshots:
    """The snapshots of collections in the gallery bucket, for one model."""
    return PublishedSnapshots(objects, settings.gallery_bucket, model_id, _directory(settings))


def gallery_cache(
    settings: Settings,
    templates: TemplateStore,
    objects: ObjectStore,
    *,
    model_id: str,
    dimension: int,
    keep_files: bool = False,
    readers: GalleryReaders | None = None,
) -> GalleryCache:
    """The gallery in memory; with `keep_files` it keeps the machine's snapshots, for the next process.

    With `readers` it tells the ledger of erasures what it holds.
    """
    machine = settings.worker.instance_id or socket.gethostname()
    table = f"{settings.endpoint_url or settings.aws.region}/{settings.templates_table}"
    return GalleryCache(
        templates,
        model_id,
        settings.gallery.refresh_seconds,
        dimension=dimension,
        snapshots=GallerySnapshots(_directory(settings), table, model_id) if keep_files else None,
        published=published_snapshots(settings, objects, model_id),
        matching=settings.gallery.matching,
        reporter=None if readers is None else ReaderReporter(readers, machine, _directory(settings), model_id=model_id),
    )


def _directory(settings: Settings) -> Path:
    return settings.model.cache_dir / "galleries"
