"""`facerec people audit`: enrolments that contradict each other, or are of little use, with what to do about each."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict

import click

from facerec import bootstrap
from facerec.commands.terminal import collection_option, json_option, progress_bar
from facerec.comparison import ModelThresholds
from facerec.echo import Styled, echo, echo_json
from facerec.engine.loading import load_artefact
from facerec.gallery.audit import AuditReport, Finding, GalleryAudit, Problem
from facerec.gallery.damaged import removal_command
from facerec.gallery.names import valid_collection
from facerec.settings import Settings
from facerec.text import counted

_SHOWN = 10
"""Names of people with a single template."""


@click.command("audit")
@collection_option
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Least similarity of a match.  [default: the collection's, or the model's for so many people]",
)
@json_option
def audit(collection: str, threshold: float | None, *, as_json: bool) -> None:
    """Look for bad and contradictory enrolments of a collection, and say what to do about each. Nothing is changed.

    \b
    wrong name   the template matches another person, and none of its own person's other templates
    same face    two people match: one person under two names, or look-alikes
    unlike       it is nearer to another person than to the person's other templates, and matches neither
    low quality  below FACEREC_GALLERY__MIN_QUALITY or FACEREC_GALLERY__MIN_PROBABILITY
    damaged      it cannot be used
    photo gone   its photo is not in the store

    People who are alike, as twins are, are found again each time, until `facerec people not` has one of the photos.

    \b
    Exit status:
      0  nothing is wrong
      1  something is
      2  the command line is wrong

    \b
    Examples:
      facerec people audit
      facerec people audit --collection staff --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    valid_collection(collection)
    settings = Settings.load()
    model = load_artefact(settings)
    gallery = GalleryAudit(
        templates=bootstrap.template_store(settings),
        photos=bootstrap.object_store(settings),
        bucket=settings.gallery_bucket,
        model_id=model.model_id,
        dimension=model.dimension,
        thresholds=ModelThresholds(model.tail, model.threshold, settings.gallery.false_names),
        min_quality=settings.gallery.min_quality,
        min_probability=settings.gallery.min_probability,
    )
    with progress_bar(as_json=as_json) as progress:
        waiting = progress.add_task(f"comparing {collection}", total=None)
        report = gallery.run(collection, threshold)
        progress.update(waiting, visible=False)
    if as_json:
        findings = [asdict(each) | {"advice": list(_advice(each, collection))} for each in report.findings]
        echo_json(asdict(report) | {"findings": findings, "collection": collection, "model": model.model_id})
    else:
        _print(report, collection)
    if report.findings:
        raise SystemExit(1)


def _print(report: AuditReport, collection: str) -> None:
    for each in report.findings:
        echo(Styled(f"{each.problem.replace('_', ' '):<11}", "red"), f"  {_sentence(each)}")
        for line in _advice(each, collection):
            echo(f"             {line}")
    looked_at = f"{counted(report.templates, 'template')} of {_people(report.people)}"
    found = counted(len(report.findings), "finding")
    echo(f"{found} in {looked_at} (collection {collection}, threshold {report.threshold:.4f})")
    if report.single:
        names = ", ".join(report.single[:_SHOWN])
        more = f" and {len(report.single) - _SHOWN} more" if len(report.single) > _SHOWN else ""
        echo(
            f"{_people(len(report.single))} with a single template, which nothing can contradict: {names}{more}",
            err=True,
        )
    if report.not_assessed:
        echo(f"{counted(report.not_assessed, 'template')} without a stored quality", err=True)
    if report.other_models:
        command = f"facerec gallery rebuild --collection {collection}"
        echo(f"{counted(report.other_models, 'template')} of other models not looked at: `{command}`", err=True)


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def _sentence(found: Finding) -> str:
    whose = f"{found.identity}, {found.source or found.template_id}"
    if found.problem in {Problem.DAMAGED, Problem.LOW_QUALITY}:
        return f"{whose}: {found.reason}"
    if found.problem is Problem.PHOTO_GONE:
        return f"{whose}: the template works, and its photo is not in the store"
    own = "" if found.own_similarity is None else f", {found.own_similarity:.2f} to the person's own"
    return f"{whose}: {found.similarity:.2f} to {found.other}, {found.other_source or found.other_template_id}{own}"


def _advice(found: Finding, collection: str) -> Iterator[str]:
    """Yield what to do, a line for each choice."""
    of = f" --collection {shlex.quote(collection)}"
    remove = removal_command(collection, found.template_id)
    name, other = shlex.quote(found.identity), shlex.quote(found.other or "")
    match found.problem:
        case Problem.WRONG_NAME:
            yield f"it shows {found.other}: {remove}, and enrol the photo for {found.other}"
            yield f"it shows {found.identity}: facerec people not {other}{of} --photo PHOTO"
        case Problem.SAME_FACE:
            yield f"one person: facerec people merge {name} {other}{of}"
            yield f"two people: facerec people not {other}{of} --photo PHOTO, with the photo of {found.identity}"
        case Problem.UNLIKE:
            yield f"look at the photo; if it is a bad one or another person's: {remove}"
        case Problem.LOW_QUALITY:
            yield f"enrol a better photo, then: {remove}"
        case Problem.DAMAGED:
            yield f"enrol the photo again, or: {remove}"
        case Problem.PHOTO_GONE:
            yield f"enrol the photo again after: {remove}"
