"""`facerec people unknown`: the unknown people of a collection."""

from typing import Any

import click

from facerec import bootstrap
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import collection_option, exact_names_option, json_option, print_columns, yes_option
from facerec.echo import confirm, echo, echo_json
from facerec.gallery.unknown_people import Unknown
from facerec.text import counted
from facerec.unknown_records import UnknownPerson


@click.group("unknown")
def unknown() -> None:
    """List, show, promote and remove unknown people, where FACEREC_UNKNOWN__COLLECTIONS has them kept.

    \b
    Examples:
      facerec people unknown list
      facerec people unknown show unknown-0123456789ab
      facerec people unknown promote unknown-0123456789ab "Ada Lovelace"
      facerec people unknown remove unknown-0123456789ab
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


def _opened(gallery: OpenGallery) -> Unknown:
    return Unknown(
        enrolled=gallery.templates,
        records=bootstrap.unknown_people(gallery.settings),
        names=gallery.people.records,
    )


@unknown.command("list")
@collection_option
@json_option
def list_(collection: str, *, as_json: bool) -> None:
    """List the unknown people by id, with their first and last sight."""
    gallery = open_gallery(collection)
    found = _opened(gallery).page(collection)
    if as_json:
        echo_json([_json_object(record) for record in found])
    elif found:
        rows = [_row(record) for record in found]
        print_columns([("id", "seen", "first seen (UTC)", "last seen (UTC)", "faces"), *rows])
    elif gallery.settings.unknown.kept(collection):
        echo(f"No unknown people in collection {collection}.", err=True)
    else:
        echo(f"Unknown people are not kept in collection {collection}: set FACEREC_UNKNOWN__COLLECTIONS.", err=True)


@unknown.command("show")
@click.argument("unknown_id", metavar="ID")
@collection_option
@json_option
def show(unknown_id: str, collection: str, *, as_json: bool) -> None:
    """Show the unknown person ID, also by an id that was merged into it."""
    record = _opened(open_gallery(collection)).get(collection, unknown_id)
    if as_json:
        echo_json(_json_object(record))
        return
    print_columns([("id", "seen", "first seen (UTC)", "last seen (UTC)", "faces"), _row(record)])
    if record.aliases:
        echo(f"Also known as {', '.join(record.aliases)}", err=True)


@unknown.command("promote")
@click.argument("unknown_id", metavar="ID")
@click.argument("name")
@collection_option
@exact_names_option
def promote(unknown_id: str, name: str, collection: str, *, exact_names: bool) -> None:
    """Give the faces of the unknown person ID to the person NAME, new or enrolled already.

    They have no photo, so a change of the model leaves them out: enrol a photo of NAME before.
    """
    identity, count = _opened(open_gallery(collection)).promote(collection, unknown_id, name, exact=exact_names)
    echo(f"{unknown_id} is {identity!r} now, with {counted(count, 'more template')}. Workers know it within seconds.")


@unknown.command("remove")
@click.argument("unknown_id", metavar="ID")
@collection_option
@yes_option
def remove(unknown_id: str, collection: str, *, yes: bool) -> None:
    """Forget the unknown person ID; who is seen again gets a new id."""
    opened = _opened(open_gallery(collection))
    opened.get(collection, unknown_id)
    if not yes:
        confirm(f"Forget {unknown_id}?")
    echo(f"{counted(opened.remove(collection, unknown_id), 'template')} of {unknown_id} removed")


def _row(record: UnknownPerson) -> tuple[Any, ...]:
    first, last = f"{record.first_seen:%Y-%m-%d %H:%M}", f"{record.last_seen:%Y-%m-%d %H:%M}"
    return record.unknown_id, record.seen, first, last, len(record.views)


def _json_object(record: UnknownPerson) -> dict[str, Any]:
    return {
        "unknown_id": record.unknown_id,
        "first_seen": record.first_seen.isoformat(),
        "last_seen": record.last_seen.isoformat(),
        "seen_count": record.seen,
        "faces": len(record.views),
        "aliases": list(record.aliases),
        "expires_at": record.expires_at.isoformat(),
    }
