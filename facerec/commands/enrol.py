"""`facerec enrol` and `facerec gallery rebuild`: photos become templates, with a report for each."""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec import bootstrap
from facerec.commands.damaged import print_damaged
from facerec.commands.gallery_snapshot import is_published, renew_snapshot
from facerec.commands.terminal import (
    FILE,
    FOLDER,
    OTHER_PERSON_STATUS,
    collection_option,
    exact_names_option,
    progress_bar,
)
from facerec.comparison import ModelThresholds
from facerec.echo import Styled, echo, echo_json
from facerec.engine.loading import analyser, load_artefact, open_engine
from facerec.engine.migration import check_served
from facerec.gallery.enrolment import MAX_PHOTO_BYTES, Enroller, EnrolmentReport, EnrolmentStatus, WhichFace
from facerec.gallery.look_alikes import LookAlikes
from facerec.gallery.merges import follow_replacements
from facerec.gallery.names import valid_collection, valid_identity
from facerec.gallery.opening import gallery_cache
from facerec.gallery.rebuild import CollectionRebuild, RebuildReport
from facerec.settings import Settings
from facerec.text import counted
from model.artefact import Artefact

if TYPE_CHECKING:
    from model.faces import ImageAnalysis

_COLOURS = {"enrolled": "green", "rebuilt": "green", "duplicate": "yellow", "present": "yellow"}

_face_option = click.option(
    "--face",
    "which",
    type=click.Choice([str(which) for which in WhichFace]),
    default=str(WhichFace.DOMINANT),
    show_default=True,
    help="Of a photo with several faces, take the one with four times the area of the next, or the primary one.",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object with a report per photo and the counts."
)


@click.command("enrol")
@click.argument("name", required=False)
@click.argument("photos", nargs=-1, type=FILE)
@click.option("--folder", type=FOLDER, help="Enrol a folder with one folder per person, named as the person.")
@_face_option
@collection_option
@exact_names_option
@click.option("--force", is_flag=True, help="Enrol also small faces and those of poor quality.")
@click.option(
    "--no-look-alikes",
    is_flag=True,
    help="Do not look for other people like these faces, which reads the whole collection.",
)
@_json_option
def command(
    name: str | None,
    photos: tuple[Path, ...],
    folder: Path | None,
    which: str,
    collection: str,
    *,
    exact_names: bool,
    force: bool,
    no_look_alikes: bool,
    as_json: bool,
) -> None:
    """Enrol PHOTOS of the person NAME, or a whole folder of people.

    A photo must show one face, or one that has four times the area of the next largest. With --face primary it is the
    face that decides an answer, too: the largest by size and nearness to the centre. The face must be at least
    FACEREC_GALLERY__MIN_FACE_PIXELS wide and high, with a probability of FACEREC_GALLERY__MIN_PROBABILITY or more from
    the detector, and a quality of FACEREC_GALLERY__MIN_QUALITY or more. With --force these three do not matter.

    The report of a photo is enrolled, duplicate (this very photo is enrolled already for this person), other name (for
    another person), no face, several faces (with where they are), too small, poor quality (with the reasons) or invalid
    image. Running workers know the person within 5 seconds.

    "also matches Jane Smith 0.81" warns that the face is like another person's, at or above the threshold: one person
    has two names, or two people are alike. The photo is enrolled nevertheless.

    A name that differs from a known one only in case, blanks, invisible characters, the form of letters or a dot at its
    end is the same person, under the known spelling. --exact-names makes it another person, unless only what cannot be
    seen differs.

    \b
    Exit status:
      0  photos were enrolled, or all of them were enrolled for these people before
      1  no photo was enrolled, and one could not be used; or an error ended the command
      2  the command line is wrong
      3  a photo is enrolled for another person (other name), whatever became of the others

    \b
    Examples:
      facerec enrol "Ada Lovelace" ada1.jpg ada2.jpg
      facerec enrol --folder people/        # people/Ada Lovelace/*.jpg, people/Grace Hopper/*.jpg
      facerec enrol --folder people/ --collection staff --json
      facerec enrol "Ada Lovelace" wedding.jpg --face primary
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if folder is not None and name is not None:
        raise click.UsageError("Give either NAME and PHOTOS or --folder, not both.")
    if folder is not None:
        files = _people(folder, exact_names=exact_names)
    elif name is not None and photos:
        files = [(valid_identity(name, exact=exact_names), photo) for photo in photos]
    else:
        raise click.UsageError("Give NAME and at least one photo, or --folder.")
    valid_collection(collection)
    settings = Settings.load()
    reports: list[EnrolmentReport] = []
    try:
        with progress_bar(as_json=as_json) as progress:
            waiting = progress.add_task("loading the model", total=None)
            enroller = _enroller(settings, with_look_alikes=not no_look_alikes)
            progress.update(waiting, visible=False)
            for identity, path in progress.track(files, description="enrolling"):
                reports.append(
                    _enrol(enroller, identity, path, collection, WhichFace(which), exact_name=exact_names, force=force)
                )
                _print_report(reports[-1], as_json=as_json)
    finally:
        # Photos that were enrolled before an error stay enrolled, and are reported.
        counts = Counter(report.status for report in reports)
        if as_json:
            echo_json({"files": [asdict(report) for report in reports], "counts": counts})
        elif reports:
            echo(f"{_summary(reports)} (collection {collection})")
            _print_advice(reports)
    if counts[EnrolmentStatus.ENROLLED]:
        renew_snapshot(settings, collection)
    if counts[EnrolmentStatus.OTHER_NAME]:
        raise SystemExit(OTHER_PERSON_STATUS)
    if not counts[EnrolmentStatus.ENROLLED] and any(status.failed for status in counts):
        raise SystemExit(1)


def _people(folder: Path, *, exact_names: bool) -> list[tuple[str, Path]]:
    """Every visible file of every person's folder, by person; warns of files outside them."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    outside = [path.name for path in visible if path.is_file()]
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        echo(f"Left out, because it is not in a person's folder: {outside[0]}{more}", err=True)
    files = [
        (valid_identity(person.name, exact=exact_names), photo)
        for person in visible
        if person.is_dir()
        for photo in sorted(person.iterdir())
        if photo.is_file() and not photo.name.startswith(".")
    ]
    if not files:
        raise click.UsageError(f"{folder} holds no photos: make a folder per person in it, named as the person.")
    return files


def _print_advice(reports: Sequence[EnrolmentReport]) -> None:
    poor = sum(report.status in {EnrolmentStatus.TOO_SMALL, EnrolmentStatus.POOR_QUALITY} for report in reports)
    if poor:
        echo(f"{counted(poor, 'photo')} too small or of poor quality: take better ones, or use --force", err=True)
    alike = sum(bool(report.look_alikes) for report in reports)
    if alike:
        echo(f"{counted(alike, 'photo')} also like another person's: check whether one person has two names", err=True)


def _enroller(settings: Settings, *, with_look_alikes: bool) -> Enroller:
    artefact = load_artefact(settings)
    templates, objects = bootstrap.template_store(settings), bootstrap.object_store(settings)
    check_served(objects, settings.model_bucket, artefact.model_id)
    gallery = gallery_cache(settings, templates, objects, model_id=artefact.model_id, dimension=artefact.dimension)
    thresholds = ModelThresholds(artefact.tail, artefact.threshold, settings.gallery.false_names)
    return Enroller(
        analyse=analyser(settings, open_engine(settings, artefact)),
        templates=templates,
        photos=objects,
        gallery_bucket=settings.gallery_bucket,
        model_id=artefact.model_id,
        min_face_pixels=settings.gallery.min_face_pixels,
        min_quality=settings.gallery.min_quality,
        min_probability=settings.gallery.min_probability,
        look_alikes=LookAlikes(gallery, thresholds) if with_look_alikes else None,
    )


def _enrol(
    enroller: Enroller,
    identity: str,
    path: Path,
    collection: str,
    which: WhichFace,
    *,
    exact_name: bool,
    force: bool,
) -> EnrolmentReport:
    try:
        with path.open("rb") as file:
            photo = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as exc:
        detail = f"the file cannot be read: {exc.strerror}"
        return EnrolmentReport(str(path), identity, EnrolmentStatus.INVALID_IMAGE, detail)
    done = enroller.enrol(identity, path.name, photo, collection, which=which, exact_name=exact_name, force=force)
    return replace(done, file=str(path))


@click.command("rebuild")
@collection_option
@click.option("--all-collections", is_flag=True, help="Rebuild every collection, one after the other.")
@_face_option
@click.option(
    "--remove-old",
    is_flag=True,
    help="At the end remove the templates of other models whose photos are enrolled with the model in use.",
)
@_json_option
@click.pass_context
def rebuild(
    context: click.Context, collection: str, which: str, *, all_collections: bool, remove_old: bool, as_json: bool
) -> None:
    """Embed every kept photo with the model in use, so that people enrolled with another model are recognised again.

    The templates of other models stay until --remove-old is given, so that workers of either model can run meanwhile.
    It removes only those whose photos are enrolled with the model in use. Photos are kept with the new templates. Run
    the command again after an interruption: it skips what is done.

    It lists photos that cannot be used now (no face, several faces, damaged) and templates without a photo; then the
    exit status is 1. A photo that was enrolled with --face primary needs that here, too. A collection's own threshold
    belongs to its model: calibrate again.

    \b
    Examples:
      facerec gallery rebuild
      facerec gallery rebuild --all-collections --json > report.json
      facerec gallery rebuild --collection staff --remove-old     # when all workers have the new model
    """  # noqa: D301 - as above
    if all_collections and context.get_parameter_source("collection") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("Give either --collection or --all-collections, not both.")
    valid_collection(collection)
    settings = Settings.load()
    model = load_artefact(settings)
    templates, photos = bootstrap.template_store(settings), bootstrap.object_store(settings)
    analyse = _lazy_analyser(settings, model)
    names = templates.collections() if all_collections else [collection]
    reports: list[RebuildReport] = []
    renewed: dict[str, bool] = {}
    found = removed = 0
    try:
        with progress_bar(as_json=as_json) as progress:
            for name in names:
                work = CollectionRebuild(
                    name,
                    analyse=analyse,
                    templates=templates,
                    photos=photos,
                    gallery_bucket=settings.gallery_bucket,
                    model_id=model.model_id,
                    dimension=model.dimension,
                    which=WhichFace(which),
                )
                print_damaged(name, work.damaged)
                found += len(work.old)
                for old in progress.track(work.old, description=name):
                    reports.append(work.rebuild(old))
                    _print_report(reports[-1], as_json=as_json)
                follow_replacements(templates, bootstrap.person_records(settings), name, work.replaced)
                was_published = remove_old and is_published(settings, name)
                gone = work.remove_old() if remove_old else 0
                removed += gone
                if work.old:
                    renewed[name] = was_published and gone > 0
    finally:
        # Work that was done before an error or Ctrl-C stays, and is reported.
        _print_rebuilt(reports, names, model.model_id, removed, found - len(reports), as_json=as_json)
    for name, withdrawn in renewed.items():
        renew_snapshot(settings, name, withdrawn=withdrawn)
    if any(report.status.failed for report in reports):
        raise SystemExit(1)


def _lazy_analyser(settings: Settings, model: Artefact) -> "Callable[[bytes], ImageAnalysis]":
    """Load the model when the first photo needs it: a run that only removes needs none."""
    opened = functools.cache(lambda: analyser(settings, open_engine(settings, model)))

    def analyse(photo: bytes) -> "ImageAnalysis":
        return opened()(photo)

    return analyse


def _print_rebuilt(
    reports: list[RebuildReport], names: list[str], model_id: str, removed: int, left: int, *, as_json: bool
) -> None:
    if as_json:
        counts = Counter(report.status for report in reports)
        rebuilt = {"model": model_id, "templates": [asdict(report) for report in reports], "counts": counts}
        echo_json(rebuilt | {"removed": removed, "not_looked_at": left})
        return
    where = f"collection {names[0]}" if len(names) == 1 else f"{len(names)} collections"
    if reports:
        gone = f"; {counted(removed, 'template')} of other models removed" if removed else ""
        echo(f"{_summary(reports)} ({where}, model {model_id}){gone}")
    elif not left:
        echo(f"Nothing to rebuild in {where}: all templates belong to the model {model_id}.")
    if left:
        echo(f"{counted(left, 'template')} not done: run the command again to continue", err=True)


def _print_report(report: EnrolmentReport | RebuildReport, *, as_json: bool) -> None:
    if as_json:
        return
    status = Styled(f"{_words(report.status):<13}", _COLOURS.get(report.status, "red"))
    places = "; ".join(
        f"{box.x_max - box.x_min:.0f} x {box.y_max - box.y_min:.0f} at {box.x_min:.0f}, {box.y_min:.0f}"
        for box in report.faces
    )
    where = f"; they are {places}" if report.status == "several_faces" else ""
    detail = f": {report.detail}{where}" if report.detail else ""
    # The stream is named: click would find the real one behind rich's, and write into the progress bar.
    echo(status, f"  {report.identity}  {report.file}{detail}", file=sys.stdout)


def _summary(reports: Sequence[EnrolmentReport | RebuildReport]) -> str:
    counts = Counter(str(report.status) for report in reports)
    return ", ".join(f"{count} {_words(status)}" for status, count in sorted(counts.items()))


def _words(status: str) -> str:
    return status.replace("_", " ")
