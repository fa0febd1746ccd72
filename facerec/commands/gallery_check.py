"""`facerec gallery check`: what interrupted commands have left in the gallery bucket and the table."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import click

from facerec import bootstrap
from facerec.commands.damaged import known_dimensions, print_damaged
from facerec.commands.terminal import Duration, json_option
from facerec.echo import echo, echo_json
from facerec.gallery.check import Findings, GalleryCheck, LeftoverSnapshot
from facerec.gallery.names import valid_collection
from facerec.ports import StoredObject
from facerec.settings import Settings
from facerec.text import counted, duration


@click.command("check")
@click.option("--collection", help="Only this collection.  [default: all, also those that have no template]")
@click.option(
    "--remove", "removing", is_flag=True, help="Remove the photos that belong to no template, and the snapshots."
)
@click.option(
    "--older-than",
    type=Duration(),
    default="1h",
    show_default=True,
    help="The least age of such a photo: before that, an enrolment may be about to store its template.",
)
@json_option
def check(collection: str | None, older_than: timedelta, *, removing: bool, as_json: bool) -> None:
    """Find photos without a template, templates that are damaged or whose photo is gone, and snapshots to delete.

    Nothing is changed without --remove.

    An enrolment or import that was killed leaves such a photo, and an interrupted removal such a template. A published
    snapshot is to be deleted if templates were removed since, or if no reader uses it. Other commands may run
    meanwhile. The exit status is 1 if there is something left to do.

    \b
    Examples:
      facerec gallery check
      facerec gallery check --remove
      facerec gallery check --collection staff --older-than 1d --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if collection is not None:
        valid_collection(collection)
    settings = Settings.load()
    galleries = GalleryCheck(
        templates=bootstrap.template_store(settings),
        photos=bootstrap.object_store(settings),
        bucket=settings.gallery_bucket,
        older_than=older_than,
        dimensions=known_dimensions(settings),
    )
    found = galleries.find(collection)
    removed = {each.key for each in found.leftovers if removing and galleries.remove(each)}
    if removing:
        for each in found.snapshots:
            galleries.remove_snapshot(each)
    if as_json:
        _print_json(found, removed, removing=removing)
    else:
        _print(found, removed, older_than)
        _print_snapshots(found.snapshots, removing=removing)
    for name, damaged in found.damaged.items():
        print_damaged(name, damaged)
    left = found.photo_gone or found.damaged or (found.snapshots and not removing)
    if len(removed) < len(found.leftovers) or left:
        raise SystemExit(1)


def _print_json(found: Findings, removed: Collection[str], *, removing: bool) -> None:
    def photos(objects: Sequence[StoredObject]) -> list[dict[str, Any]]:
        return [
            {
                "key": each.key,
                "bytes": each.size,
                "stored_at": each.stored_at.isoformat(),
                "removed": each.key in removed,
            }
            for each in objects
        ]

    names = ("collection", "identity", "source", "template_id")
    echo_json(
        {
            "photos_without_template": photos(found.leftovers),
            "recent_photos": photos(found.recent),
            "damaged_templates": [
                {"collection": collection, "template_id": each.template_id, "reason": each.reason}
                for collection, damaged in found.damaged.items()
                for each in damaged
            ],
            "templates_without_photo": [{name: getattr(each, name) for name in names} for each in found.photo_gone],
            "snapshots": [
                {"key": each.stored.key, "bytes": each.stored.size, "reason": each.reason, "removed": removing}
                for each in found.snapshots
            ],
        }
    )


def _print(found: Findings, removed: Collection[str], older_than: timedelta) -> None:
    rows = [("removed" if each.key in removed else "no template", each) for each in found.leftovers]
    rows += [("recent", each) for each in found.recent]
    for what, photo in rows:
        echo(f"{what:<11}  {photo.key}  {photo.stored_at:%Y-%m-%d %H:%M} UTC")
    for template in found.photo_gone:
        echo(f"photo gone   {template.identity}  {template.source}  {template.template_id} of {template.collection}")
    left = len(found.leftovers) - len(removed)
    counts = f"{counted(len(removed), 'photo')} removed; " if removed else ""
    gone = f"{counted(len(found.photo_gone), 'template')} whose photo is gone"
    echo(f"{counts}{counted(left, 'photo')} without a template, {gone}")
    if left:
        echo("`facerec gallery check --remove` removes photos without a template", err=True)
    if found.recent:
        age = duration(older_than.total_seconds())
        echo(
            f"{counted(len(found.recent), 'photo')} younger than {age}: an enrolment may be running, check later",
            err=True,
        )
    if found.photo_gone:
        echo("A template without its photo works. If its removal was interrupted, remove it again.", err=True)


def _print_snapshots(snapshots: Sequence[LeftoverSnapshot], *, removing: bool) -> None:
    for each in snapshots:
        echo(f"{'removed' if removing else 'snapshot':<11}  {each.stored.key}  {each.reason}")
    if snapshots and not removing:
        echo(
            f"`facerec gallery check --remove` deletes {counted(len(snapshots), 'published snapshot')}; then "
            "`facerec gallery snapshot` publishes a new one",
            err=True,
        )
