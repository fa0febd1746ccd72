"""`facerec gallery snapshot`: publishes a collection's templates as one object, which starting workers read."""

from functools import partial

import click

from facerec import bootstrap
from facerec.commands.terminal import collection_option, progress_bar
from facerec.echo import echo
from facerec.engine.loading import load_artefact
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.names import valid_collection
from facerec.gallery.opening import gallery_cache, published_snapshots
from facerec.gallery.published import published
from facerec.settings import Settings
from facerec.text import counted
from model.artefact import Artefact
from model.index.vectors import RowsDamaged

WORTH_TEMPLATES = 5_000
"""From so many templates on a collection gets a published snapshot: reading them takes a new worker a second or two."""
WORTH_CHANGES = 1_000
"""A snapshot this many changes old is replaced; a new worker reads the changes since from the table."""
_ATTEMPTS = 3
"""People may be removed while a snapshot is written; then it is written again."""


@click.command("snapshot")
@collection_option
@click.option("--all", "all_collections", is_flag=True, help="Of every collection, one after the other.")
@click.pass_context
def snapshot(context: click.Context, collection: str, *, all_collections: bool) -> None:
    """Publish the templates of a collection as one object of the gallery bucket, for the model in use.

    A new worker or function reads it, and then only the changes since. `enrol`, `import`, `rebuild` and `remove` renew
    it, so this command is for the first one of a small collection, or after an error. Other commands may run meanwhile.

    \b
    Examples:
      facerec gallery snapshot
      facerec gallery snapshot --all
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if all_collections and context.get_parameter_source("collection") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("Give either --collection or --all, not both.")
    valid_collection(collection)
    settings = Settings.load()
    model = load_artefact(settings)
    for name in bootstrap.template_store(settings).collections() if all_collections else [collection]:
        echo(_publish(settings, model, name))


def is_published(settings: Settings, collection: str) -> bool:
    """Whether a collection has a published snapshot of any model."""
    return bool(published(bootstrap.object_store(settings), settings.gallery_bucket, collection))


def renew_snapshot(settings: Settings, collection: str, *, withdrawn: bool = False) -> None:
    """Publish a collection if that is worth it, at the end of a command that changed it; errors are only printed.

    `withdrawn` says that the command has removed templates, and with them the published snapshot.
    """
    try:
        if withdrawn or _worth(settings, collection):
            echo(_publish(settings, load_artefact(settings), collection), err=True)
    except FacerecError as exc:
        command = f"facerec gallery snapshot --collection {collection}"
        echo(f"No snapshot was published, so new workers start more slowly: {exc}. Then: `{command}`", err=True)


def _worth(settings: Settings, collection: str) -> bool:
    store = bootstrap.template_store(settings)
    try:
        model_id = load_artefact(settings).model_id
    except ConfigurationError:
        return False  # a command that needs no model
    newest = published_snapshots(settings, bootstrap.object_store(settings), model_id).newest(collection)
    if newest is None:
        return store.count(collection) >= WORTH_TEMPLATES
    return store.version(collection) - newest.version >= WORTH_CHANGES


def _publish(settings: Settings, model: Artefact, collection: str) -> str:
    """Publish a collection; returns a sentence about it."""
    store, objects = bootstrap.template_store(settings), bootstrap.object_store(settings)
    cache = gallery_cache(settings, store, objects, model_id=model.model_id, dimension=model.dimension)
    snapshots = published_snapshots(settings, objects, model.model_id)
    with progress_bar(as_json=True) as progress:
        reading = progress.add_task(f"reading {collection}", total=None)
        saved = cache.loaded(collection)
        progress.update(reading, visible=False)
        if saved.version == 0:
            raise FacerecError(f"collection {collection} holds nothing to publish")
        for _ in range(_ATTEMPTS):
            writing = progress.add_task(f"writing {collection}", total=len(saved.index))
            try:
                done = snapshots.publish(collection, saved, store, partial(progress.advance, writing))
            except RowsDamaged as exc:
                raise FacerecError(f"the disk has damaged what was read: {exc}; try again") from exc
            except OSError as exc:
                raise FacerecError(f"{settings.model.cache_dir} cannot be written: {exc}") from exc
            if done is not None:
                break
            cache.refresh()
            saved = cache.loaded(collection)
        else:
            raise FacerecError(f"people were removed from collection {collection} all the time; try again later")
    templates = counted(len(saved.index), "template")
    return f"Snapshot of collection {collection} published: {templates}, model {model.model_id}"
