"""`facerec enrol`: photos of people become templates, with a report per file."""

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import click

from facerec.commands.terminal import places, progress_bar
from facerec.gallery.enrolment import (
    MAX_PHOTO_BYTES,
    Enroller,
    EnrolmentReport,
    EnrolmentStatus,
    WhichFace,
    valid_collection,
    valid_identity,
)
from facerec.messages import DEFAULT_COLLECTION
from facerec.settings import Settings

_COLOURS = {EnrolmentStatus.ENROLLED: "green", EnrolmentStatus.DUPLICATE: "yellow"}


@click.command("enrol")
@click.argument("name", required=False)
@click.argument("photos", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Enrol a folder with one folder per person, named as the person.",
)
@click.option(
    "--face",
    "which",
    type=click.Choice([str(which) for which in WhichFace]),
    default=str(WhichFace.DOMINANT),
    show_default=True,
    help="Of a photo with several faces, enrol the one with four times the area of the next, or the primary one.",
)
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The gallery to enrol into.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with a report per file and the counts.")
def command(
    name: str | None,
    photos: tuple[Path, ...],
    folder: Path | None,
    which: str,
    collection: str,
    as_json: bool,  # noqa: FBT001 - click passes by name
) -> None:
    """Enrol PHOTOS of the person NAME, or a whole folder of people.

    A photo must show one face, or one that has four times the area of the next largest. With --face primary the one
    counts that decides an answer, too: size weighted by nearness to the centre. It must be at least
    FACEREC_GALLERY__MIN_FACE_PIXELS wide and high, of FACEREC_GALLERY__MIN_QUALITY or more.

    Each file is reported as enrolled, duplicate (this very photo is enrolled already), no face, several faces (with
    where they are), too small, poor quality (with the reasons) or invalid image. Running workers know the person within
    5 seconds. The exit status is 1 when nothing was enrolled and a photo was of no use.

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
        files = _people(folder)
    elif name is not None and photos:
        files = [(valid_identity(name), photo) for photo in photos]
    else:
        raise click.UsageError("Give NAME and at least one photo, or --folder.")
    valid_collection(collection)
    reports: list[EnrolmentReport] = []
    try:
        with progress_bar(as_json=as_json) as progress:
            waiting = progress.add_task("loading the model", total=None)
            enroller = _enroller(Settings.load())
            progress.update(waiting, visible=False)
            for identity, path in progress.track(files, description="enrolling"):
                reports.append(_enrol(enroller, identity, path, collection, WhichFace(which)))
                if not as_json:
                    # Named, because click would else find the real stream behind rich's and write into the bar.
                    click.echo(_line(reports[-1]), file=sys.stdout)
    finally:
        # What was enrolled before an error stays enrolled, and is told.
        counts = Counter(report.status for report in reports)
        if as_json:
            click.echo(json.dumps({"files": [asdict(report) for report in reports], "counts": counts}, indent=2))
        elif reports:
            summary = ", ".join(f"{count} {_words(status)}" for status, count in sorted(counts.items()))
            click.echo(f"{summary} (collection {collection})")
    if not counts[EnrolmentStatus.ENROLLED] and any(status.failed for status in counts):
        raise SystemExit(1)


def _people(folder: Path) -> list[tuple[str, Path]]:
    """Every visible file of every person's folder, by person; tells of files that belong to nobody."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    strays = [path.name for path in visible if path.is_file()]
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        click.echo(f"Left out, since it lies in no person's folder: {strays[0]}{more}", err=True)
    files = [
        (valid_identity(person.name), photo)
        for person in visible
        if person.is_dir()
        for photo in sorted(person.iterdir())
        if photo.is_file() and not photo.name.startswith(".")
    ]
    if not files:
        raise click.UsageError(f"{folder} holds no photos: make a folder per person in it, named as the person.")
    return files


def _enroller(settings: Settings) -> Enroller:
    from facerec import bootstrap
    from facerec.engine.loading import analyser, load_artefact, open_engine

    artefact = load_artefact(settings)
    return Enroller(
        analyse=analyser(settings, open_engine(settings, artefact)),
        templates=bootstrap.template_store(settings),
        photos=bootstrap.object_store(settings),
        gallery_bucket=settings.gallery_bucket,
        model_id=artefact.model_id,
        min_face_pixels=settings.gallery.min_face_pixels,
        min_quality=settings.gallery.min_quality,
    )


def _enrol(enroller: Enroller, identity: str, path: Path, collection: str, which: WhichFace) -> EnrolmentReport:
    try:
        with path.open("rb") as file:
            photo = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as exc:
        detail = f"the file cannot be read: {exc.strerror}"
        return EnrolmentReport(str(path), identity, EnrolmentStatus.INVALID_IMAGE, detail)
    return replace(enroller.enrol(identity, path.name, photo, collection, which=which), file=str(path))


def _line(report: EnrolmentReport) -> str:
    status = click.style(f"{_words(report.status):<13}", fg=_COLOURS.get(report.status, "red"))
    where = f"; they are {places(report.faces)}" if report.status is EnrolmentStatus.SEVERAL_FACES else ""
    return f"{status}  {report.identity}  {report.file}: {report.detail}{where}"


def _words(status: EnrolmentStatus) -> str:
    return status.replace("_", " ")
