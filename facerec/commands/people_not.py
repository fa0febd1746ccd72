"""`facerec people not`: remembers that a face is not a person's."""

from pathlib import Path
from typing import Any

import click

from facerec.commands.asking import ask
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import FILE, collection_option, json_option, print_columns
from facerec.echo import echo, echo_json
from facerec.errors import FacerecError
from facerec.gallery.names import same_person
from facerec.gallery.people import as_template_id
from facerec.messages import Outcome
from facerec.operations import Reject
from facerec.ports import RejectionEntry
from facerec.text import counted


@click.command("not")
@click.argument("name")
@click.option("--photo", type=FILE, help="A photo that was recognised as NAME, and shows somebody else.")
@click.option(
    "--face",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which face of the photo, by its place in `faces` of the result; 0 is the primary one.",
)
@click.option("--list", "listing", is_flag=True, help="List what is remembered.")
@click.option("--forget", multiple=True, metavar="ID", help="Remember this no longer; may be repeated.")
@collection_option
@json_option
def not_(
    name: str,
    photo: Path | None,
    face: int,
    forget: tuple[str, ...],
    collection: str,
    *,
    listing: bool,
    as_json: bool,
) -> None:
    """Remember that a face is not NAME: it, and faces that are more like it than like NAME, are not named so again.

    A worker finds the face, so one must be running. The photo is kept only as long as an upload's.

    \b
    Examples:
      facerec people not "Ada Lovelace" --photo somebody_else.jpg
      facerec people not "Ada Lovelace" --photo group.jpg --face 2
      facerec people not "Ada Lovelace" --list
      facerec people not "Ada Lovelace" --forget 0123456789abcdef0123456789abcdef
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if (photo is not None) + listing + bool(forget) != 1:
        raise click.UsageError("Give one of --photo, --list and --forget.")
    gallery = open_gallery(collection)
    if photo is not None:
        _reject(gallery, name, photo, face)
        return
    found = [entry for entry in gallery.templates.rejection_entries(collection) if same_person(entry.identity, name)]
    if forget:
        _forget(gallery, name, found, [as_template_id(each) or each for each in forget])
    elif as_json:
        echo_json([_json_object(entry) for entry in found])
    elif found:
        rows = [
            (entry.rejection_id, entry.source, f"{entry.rejected_at:%Y-%m-%d %H:%M}", entry.model_id) for entry in found
        ]
        print_columns([("id", "photo", "remembered (UTC)", "model"), *rows])
    else:
        echo(f"Nothing is remembered as not being {name!r} in collection {collection}.", err=True)


def _reject(gallery: OpenGallery, name: str, photo: Path, face: int) -> None:
    from facerec.web.asking import Question
    from facerec.web.forms import Photo

    gallery.people.template_ids(gallery.collection, name)  # raises for a name that is nobody's
    question = Question(
        photo=Photo(photo.name, photo.read_bytes()),
        operation=Reject(identity=name, face=face),
        collection=gallery.collection,
    )
    result = ask(gallery.settings, question, wait_seconds=gallery.settings.web.wait_seconds)
    if result.outcome is not Outcome.DONE:
        raise FacerecError(f"{photo}: {result.detail or result.outcome}")
    echo(f"Remembered: face {face} of {photo.name} is not {name!r}. Workers know it within seconds.")


def _forget(gallery: OpenGallery, name: str, found: list[RejectionEntry], ids: list[str]) -> None:
    known = {entry.rejection_id for entry in found}
    for identifier in ids:
        if identifier not in known:
            raise FacerecError(f"nothing with the id {identifier!r} is remembered as not being {name!r}")
    count = gallery.templates.remove_rejections(gallery.collection, ids)
    echo(f"{counted(count, 'rejection')} of {name!r} forgotten")


def _json_object(entry: RejectionEntry) -> dict[str, Any]:
    return {
        "rejection_id": entry.rejection_id,
        "identity": entry.identity,
        "source": entry.source,
        "model_id": entry.model_id,
        "rejected_at": entry.rejected_at.isoformat(),
    }
