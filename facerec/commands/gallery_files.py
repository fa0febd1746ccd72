"""`facerec gallery export`, `import` and `import-pt`: collections as files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.damaged import print_damaged, print_not_imported
from facerec.commands.gallery_snapshot import renew_snapshot
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import (
    FILE,
    OTHER_PERSON_STATUS,
    collection_option,
    exact_names_option,
    tracked,
)
from facerec.echo import echo
from facerec.errors import AlreadyEnrolled, ConfigurationError, FacerecError, ObjectMissing
from facerec.gallery.names import KnownNames
from facerec.ports import DamagedTemplate, Rejection, Template
from facerec.text import counted

if TYPE_CHECKING:
    from facerec.gallery.archive import Remembered


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--photos", is_flag=True, help="Include the photos; without it only names and embeddings are exported.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@collection_option
def export(file: Path, collection: str, *, photos: bool, force: bool) -> None:
    """Write a collection to one portable FILE. Only its owner can read it, because it holds biometric data."""
    from facerec.gallery.archive import Remembered, write_archive

    gallery = open_gallery(collection)
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists already; --force overwrites it.")
    templates = [*chain.from_iterable(gallery.everyone().values())]
    if not templates:
        print_damaged(gallery.collection, gallery.damaged)
        raise FacerecError(f"collection {collection} holds nothing to export")
    missing: list[str] = []

    def stored() -> Iterator[tuple[str, bytes]]:
        for template in tracked(templates, "fetching photos"):
            place = template.photo
            try:
                photo = None if place is None else gallery.photos.get(place.bucket, place.key)
            except ObjectMissing:
                photo = None
            if photo is None:
                missing.append(template.template_id)
            else:
                yield template.template_id, photo

    try:
        remembered = Remembered(
            gallery.templates.rejections(collection),
            gallery.people.merges(collection),
            gallery.people.records.names(collection),
        )
        pictures = stored() if photos else ()
        left_out = write_archive(file, gallery.collection, templates, pictures, datetime.now(UTC), remembered)
    except OSError as exc:
        raise click.FileError(str(file), exc.strerror) from exc
    echo(f"{counted(len(templates) - len(left_out), 'template')} exported to {file}")
    print_damaged(gallery.collection, [*gallery.damaged, *left_out])
    if missing:
        echo(f"without a photo: {counted(len(missing), 'template')}", err=True)


@click.command("import")
@click.argument("file", type=FILE)
@click.option("--collection", help="Import into this collection.  [default: the one in FILE]")
@click.option("--any-model", is_flag=True, help="Store templates of other models too, for when these are in use.")
@exact_names_option
def import_(file: Path, collection: str | None, *, any_model: bool, exact_names: bool) -> None:
    """Import what `export` wrote; templates that are present stay as they are.

    Names are compared as by `enrol`. A photo that is enrolled for another person is left out; the exit status is then
    3. Only embeddings of one model can be compared. A FILE with templates of other models is refused as a whole, unless
    --any-model is given.
    """
    from facerec.gallery.archive import open_archive

    with open_archive(file) as archive:
        gallery = open_gallery(collection or archive.collection)
        _check_archive(gallery, archive.templates, archive.remembered.rejections, file, any_model=any_model)
        print_not_imported(archive.damaged)
        for sentence in archive.left_out:
            echo(f"Not imported: {sentence}", err=True)
        _restore(gallery, archive.templates, archive.photo, archive.remembered, exact_names=exact_names)


@click.command("import-pt")
@click.argument("file", type=FILE)
@click.option("--model", "model_name", required=True, metavar="NAME", help="The model that made the embeddings.")
@collection_option
@exact_names_option
def import_pt(file: Path, model_name: str, collection: str, *, exact_names: bool) -> None:
    """Import a saved pair: a .pt FILE with a list of 1xD embeddings and the list of their names.

    Needs torch (`make install-reference`). NAME is the weights' name (casia-webface, vggface2) or the model id of
    `facerec model show`, and must be the model in use; D is its dimension. "Model" means the crop as well as the
    weights: embeddings from scripts with MTCNN(image_size=240, margin=0) come from another crop than this model's, and
    match worse than photos that are enrolled with `facerec enrol`. Photos are not part of such a file. Names are
    compared as by `enrol`.
    """
    from facerec.gallery.archive import NOTHING
    from facerec.gallery.import_pt import read_pair, templates_of_pair

    gallery = open_gallery(collection)
    model = gallery.model
    if model_name not in {model.weights_name, model.model_id}:
        raise FacerecError(
            f"the model in use is {model.weights_name} ({model.model_id}), and embeddings of {model_name} cannot be "
            "compared with its own; enrol the photos instead"
        )
    embeddings, names = read_pair(file)
    damaged: list[DamagedTemplate] = []
    templates = templates_of_pair(
        file,
        embeddings,
        names,
        collection=gallery.collection,
        model_id=model.model_id,
        dimension=model.dimension,
        now=datetime.now(UTC),
        exact_names=exact_names,
        damaged=damaged,
    )
    print_not_imported(damaged)
    _restore(gallery, templates, lambda _: None, NOTHING, exact_names=exact_names)


def _check_archive(
    gallery: OpenGallery,
    templates: Sequence[Template],
    rejections: Sequence[Rejection],
    file: Path,
    *,
    any_model: bool,
) -> None:
    """Refuse templates of other models, and embeddings of a wrong length, which no worker could use."""
    try:
        model = gallery.model
    except ConfigurationError:
        if any_model:
            return
        raise
    others = {template.model_id for template in templates} - {model.model_id}
    if others and not any_model:
        count = sum(template.model_id in others for template in templates)
        raise FacerecError(
            f"{count} of {counted(len(templates), 'template')} in {file} belong to {', '.join(sorted(others))}, and "
            f"the model in use is {model.model_id}: enrol the photos again, or store these with --any-model"
        )
    own = [template.embedding.size for template in templates if template.model_id == model.model_id]
    own += [rejection.embedding.size for rejection in rejections if rejection.model_id == model.model_id]
    wrong = [size for size in own if size != model.dimension]
    if wrong:
        raise FacerecError(
            f"{counted(len(wrong), 'template')} in {file} claim to be of {model.model_id} and have {wrong[0]} numbers "
            f"each instead of {model.dimension}: the file was not written by `facerec gallery export`"
        )


def _restore(
    gallery: OpenGallery,
    templates: Sequence[Template],
    photo: Callable[[str], bytes | None],
    remembered: "Remembered",
    *,
    exact_names: bool,
) -> None:
    from facerec.gallery.restoring import restore, restore_remembered, restored_id

    store, photos, bucket = gallery.templates, gallery.photos, gallery.settings.gallery_bucket
    known = KnownNames(store.owners(gallery.collection).values())
    renamed: dict[str, str] = {}
    counts = Counter[str]()
    ids: dict[str, str] = {}
    for template in tracked(templates, "importing"):
        identity = known.adopt(template.identity, exact=exact_names)
        if identity != template.identity:
            renamed[template.identity] = identity
        try:
            named, picture = replace(template, identity=identity), photo(template.template_id)
            new = restore(named, picture, gallery.collection, bucket, store, photos, exact_names=exact_names)
            ids[template.template_id] = restored_id(template, picture, gallery.collection)
            counts["new" if new else "present"] += 1
        except AlreadyEnrolled as exc:
            counts["other"] += 1
            echo(f"Left out: the photo {template.source!r} of {identity!r} is enrolled for {exc.identity!r}", err=True)
    restore_remembered(
        remembered,
        gallery.collection,
        ids,
        lambda name: known.adopt(name, exact=exact_names),
        store,
        gallery.people.records,
    )
    for written, identity in renamed.items():
        echo(f"{written!r} is imported as {identity!r}", err=True)
    rest = f"; {counted(counts['present'], 'template')} already present" if counts["present"] else ""
    rest += f"; {counted(counts['other'], 'template')} enrolled for another person" if counts["other"] else ""
    echo(f"{counted(counts['new'], 'template')} imported into collection {gallery.collection}{rest}")
    if counts["new"]:
        renew_snapshot(gallery.settings, gallery.collection)
    if counts["other"]:
        raise SystemExit(OTHER_PERSON_STATUS)
