"""`facerec gallery export|import|import-pt`: galleries as files."""

import functools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.gallery_access import OpenGallery, collection_option, counted, open_gallery
from facerec.commands.terminal import places, progress_bar, tracked
from facerec.engine.loading import analyser, open_engine
from facerec.errors import ConfigurationError, FacerecError, ObjectMissing
from facerec.gallery.enrolment import WhichFace
from facerec.gallery.rebuild import CollectionRebuild, RebuildReport, RebuildStatus
from facerec.ports import Template

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--photos", is_flag=True, help="Include the photos; else only names and embeddings leave.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@collection_option
def export(file: Path, photos: bool, force: bool, collection: str) -> None:  # noqa: FBT001 - click passes by name
    """Write a collection to one portable FILE, readable by its owner only, since it holds biometric data."""
    from facerec.gallery.archive import write_archive

    gallery = open_gallery(collection)
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists already; --force overwrites it.")
    templates = gallery.sorted_templates()
    if not templates:
        raise FacerecError(f"collection {collection} holds nothing to export")
    missing: list[str] = []

    def stored() -> Iterator[tuple[str, bytes]]:
        for template in tracked(templates, "fetching photos"):
            if template.photo is None:
                missing.append(template.template_id)
                continue
            try:
                yield template.template_id, gallery.photos.get(template.photo.bucket, template.photo.key)
            except ObjectMissing:
                missing.append(template.template_id)

    try:
        write_archive(file, gallery.collection, templates, stored() if photos else (), datetime.now(UTC))
    except OSError as exc:
        raise click.FileError(str(file), exc.strerror) from exc
    click.echo(f"{counted(len(templates))} exported to {file}")
    if missing:
        click.echo(f"without a photo: {counted(len(missing))}", err=True)


@click.command("import")
@click.argument("file", type=_FILE)
@click.option("--collection", help="Import into this collection.  [default: the one in FILE]")
@click.option("--any-model", is_flag=True, help="Store templates of other models too, for when these are in use.")
def import_(file: Path, collection: str | None, any_model: bool) -> None:  # noqa: FBT001 - click passes by name
    """Import what `export` wrote; what is there already stays as it is.

    Only embeddings of the same model can be compared, so a FILE with others is refused as a whole, unless
    --any-model is given.
    """
    from facerec.gallery.archive import open_archive, restore

    with open_archive(file) as archive:
        gallery = open_gallery(collection or archive.collection)
        if not any_model:
            _refuse_other_models(gallery, archive.templates, file)
        _refuse_other_dimensions(gallery, archive.templates, file)
        store, photos, bucket = gallery.templates, gallery.photos, gallery.settings.gallery_bucket
        new = sum(
            restore(template, archive.photo(template.template_id), gallery.collection, bucket, store, photos)
            for template in tracked(archive.templates, "importing")
        )
    _tell_imported(new, len(archive.templates), gallery.collection)


@click.command("import-pt")
@click.argument("file", type=_FILE)
@click.option("--model", "model_name", required=True, metavar="NAME", help="The model that made the embeddings.")
@collection_option
def import_pt(file: Path, model_name: str, collection: str) -> None:
    """Import a saved pair: a .pt FILE with a list of 1xD embeddings and the list of their names.

    Needs torch (`make install-reference`). NAME is the weights' name (casia-webface, vggface2) or the model id of
    `facerec model show`, and must be the model in use; D is its dimension. "Model" means the crop as well as the
    weights: embeddings from scripts with MTCNN(image_size=240, margin=0) see another crop than this model does, and
    match worse than photos that are enrolled with `facerec enrol`. Photos are not part of such a file.

    \b
    Example:
      facerec gallery import-pt data.pt --model casia-webface
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.gallery.archive import restore
    from facerec.gallery.import_pt import read_pair, templates_of_pair

    gallery = open_gallery(collection)
    model = gallery.model
    if model_name not in {model.weights_name, model.model_id}:
        raise FacerecError(
            f"the model in use is {model.weights_name} ({model.model_id}), and embeddings of {model_name} cannot be "
            "compared with its own; enrol the photos instead"
        )
    embeddings, names = read_pair(file)
    templates = templates_of_pair(
        file,
        embeddings,
        names,
        collection=gallery.collection,
        model_id=model.model_id,
        dimension=model.dimension,
        now=datetime.now(UTC),
    )
    store, photos, bucket = gallery.templates, gallery.photos, gallery.settings.gallery_bucket
    new = sum(
        restore(template, None, gallery.collection, bucket, store, photos)
        for template in tracked(templates, "importing")
    )
    _tell_imported(new, len(templates), gallery.collection)


def _refuse_other_models(gallery: OpenGallery, templates: Sequence[Template], file: Path) -> None:
    in_use = gallery.model.model_id
    others = [template.model_id for template in templates if template.model_id != in_use]
    if others:
        raise FacerecError(
            f"{len(others)} of {counted(len(templates))} in {file} belong to {', '.join(sorted(set(others)))}, and "
            f"the model in use is {in_use}: enrol the photos again, or store them for later with --any-model"
        )


def _refuse_other_dimensions(gallery: OpenGallery, templates: Sequence[Template], file: Path) -> None:
    """One template of a wrong length under the model's id would keep workers from loading the collection."""
    try:
        model = gallery.model
    except ConfigurationError:
        return  # only --any-model comes so far without a model
    own = [template.embedding.size for template in templates if template.model_id == model.model_id]
    wrong = [size for size in own if size != model.dimension]
    if wrong:
        raise FacerecError(
            f"{counted(len(wrong))} in {file} claim to be of {model.model_id} and have {wrong[0]} numbers each "
            f"instead of {model.dimension}: the file was not written by `facerec gallery export`"
        )


def _tell_imported(new: int, total: int, collection: str) -> None:
    there = f"; {counted(total - new)} there already" if new < total else ""
    click.echo(f"{counted(new)} imported into collection {collection}{there}")


if TYPE_CHECKING:
    from collections.abc import Callable

    from model.faces import ImageAnalysis

_COLOURS = {RebuildStatus.REBUILT: "green", RebuildStatus.PRESENT: "yellow"}


@click.command("rebuild")
@collection_option
@click.option("--all-collections", is_flag=True, help="Rebuild every collection, one after the other.")
@click.option(
    "--face",
    "which",
    type=click.Choice([str(which) for which in WhichFace]),
    default=str(WhichFace.DOMINANT),
    show_default=True,
    help="Of a photo with several faces, take the one with four times the area of the next, or the primary one.",
)
@click.option(
    "--remove-old",
    is_flag=True,
    help="At the end remove the templates of other models whose photos are enrolled with the model in use.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with a report per photo and the counts.")
@click.pass_context
def rebuild(
    context: click.Context,
    collection: str,
    all_collections: bool,  # noqa: FBT001 - click passes by name
    which: str,
    remove_old: bool,  # noqa: FBT001 - as above
    as_json: bool,  # noqa: FBT001 - as above
) -> None:
    """Embed every kept photo with the model in use, so that people enrolled with another model are known again.

    The templates of other models stay until --remove-old is given, so that workers of either model go on meanwhile;
    then only those go whose photos are enrolled with the model in use. Photos are kept with the new templates. A run
    that was interrupted is continued by giving the command again: what is done is skipped.

    Listed are photos that cannot be used now (no face, several faces, damaged) and templates without a photo; the exit
    status is 1 then. A photo that was enrolled with --face primary needs that here, too. A collection's own threshold
    belongs to its model: calibrate again.

    \b
    Examples:
      facerec gallery rebuild
      facerec gallery rebuild --all-collections --json > report.json
      facerec gallery rebuild --collection staff --remove-old     # when all workers have the new model
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if all_collections and context.get_parameter_source("collection") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("Give either --collection or --all-collections, not both.")
    gallery = open_gallery(collection)
    model = gallery.model
    names = gallery.templates.collections() if all_collections else [gallery.collection]

    @functools.cache
    def opened() -> "Callable[[bytes], ImageAnalysis]":
        return analyser(gallery.settings, open_engine(gallery.settings, model))

    def analyse(photo: bytes) -> "ImageAnalysis":
        # The model is loaded when the first photo needs it: a run that only removes needs none.
        return opened()(photo)

    reports: list[RebuildReport] = []
    found = removed = 0
    try:
        with progress_bar(as_json=as_json) as progress:
            for name in names:
                work = CollectionRebuild(
                    name,
                    analyse=analyse,
                    templates=gallery.templates,
                    photos=gallery.photos,
                    gallery_bucket=gallery.settings.gallery_bucket,
                    model_id=model.model_id,
                    which=WhichFace(which),
                )
                found += len(work.old)
                for old in progress.track(work.old, description=name):
                    reports.append(work.rebuild(old))
                    if not as_json:
                        # Named, because click would else find the real stream behind rich's and write into the bar.
                        click.echo(_line(reports[-1]), file=sys.stdout)
                if remove_old:
                    removed += work.remove_old()
    finally:
        # What was done before an error or Ctrl-C stays, and is reported.
        _tell(reports, names, model.model_id, removed, found - len(reports), as_json=as_json)
    if any(report.status.failed for report in reports):
        raise SystemExit(1)


def _tell(
    reports: list[RebuildReport], names: list[str], model_id: str, removed: int, left: int, *, as_json: bool
) -> None:
    counts = Counter(report.status for report in reports)
    if as_json:
        told = {"model": model_id, "templates": [asdict(report) for report in reports], "counts": counts}
        click.echo(json.dumps(told | {"removed": removed, "not_looked_at": left}, indent=2))
        return
    where = f"collection {names[0]}" if len(names) == 1 else f"{len(names)} collections"
    if reports:
        summary = ", ".join(f"{count} {_words(status)}" for status, count in sorted(counts.items()))
        gone = f"; {counted(removed)} of other models removed" if removed else ""
        click.echo(f"{summary} ({where}, model {model_id}){gone}")
    elif not left:
        click.echo(f"Nothing to rebuild in {where}: no template belongs to another model than {model_id}.")
    if left:
        click.echo(f"{counted(left)} not looked at: run the command again, it goes on from here", err=True)


def _line(report: RebuildReport) -> str:
    status = click.style(f"{_words(report.status):<13}", fg=_COLOURS.get(report.status, "red"))
    where = f"; they are {places(report.faces)}" if report.status is RebuildStatus.SEVERAL_FACES else ""
    detail = f": {report.detail}{where}" if report.detail else ""
    return f"{status}  {report.identity}  {report.file}{detail}"


def _words(status: RebuildStatus) -> str:
    return status.replace("_", " ")
