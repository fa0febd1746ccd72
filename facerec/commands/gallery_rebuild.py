"""`facerec gallery rebuild`: after a change of the model, the kept photos are embedded again."""

import functools
import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from facerec.commands.gallery_access import collection_option, counted, open_gallery
from facerec.commands.printing import places, progress_bar
from facerec.enrolment import WhichFace
from facerec.gallery_rebuild import CollectionRebuild, RebuildReport, RebuildStatus
from facerec.model_in_use import analyser, open_engine

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
