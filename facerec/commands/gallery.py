"""`facerec gallery`: the enrolled people of a collection."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import click

from facerec.commands.damaged import print_damaged
from facerec.commands.enrol import rebuild
from facerec.commands.gallery_check import check
from facerec.commands.gallery_files import export, import_, import_pt
from facerec.commands.gallery_snapshot import is_published, renew_snapshot, snapshot
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import (
    collection_option,
    exact_names_option,
    json_option,
    print_columns,
    yes_option,
)
from facerec.echo import confirm, echo, echo_json
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.removal import remove_templates
from facerec.message_base import DEFAULT_COLLECTION
from facerec.ports import Template
from facerec.text import counted


@click.group("gallery")
def command() -> None:
    """List, show, remove, export, import, check and rebuild enrolled people.

    Damaged templates are left out, and listed with their ids on standard error.

    \b
    Examples:
      facerec gallery list
      facerec gallery remove --template 0123456789abcdef0123456789abcdef      # also a damaged one
      facerec gallery remove "Ada Lovelace" --template 0123456789abcdef0123456789abcdef --yes
      facerec gallery export --photos backup.facerec
      facerec gallery import backup.facerec
      facerec gallery import-pt data.pt --model casia-webface
      facerec gallery rebuild --all-collections     # after a change of the model
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


command.add_command(check)
command.add_command(rebuild)
command.add_command(export)
command.add_command(import_)
command.add_command(import_pt)
command.add_command(snapshot)


@command.command("list")
@collection_option
@json_option
def list_(collection: str, *, as_json: bool) -> None:
    """List everyone with the number of their templates and the models of these."""
    gallery = open_gallery(collection)
    everyone = gallery.everyone()
    models = {identity: sorted({t.model_id for t in templates}) for identity, templates in everyone.items()}
    if as_json:
        people = [
            {"identity": identity, "templates": len(templates), "models": models[identity]}
            for identity, templates in everyone.items()
        ]
        echo_json(people)
    elif everyone:
        rows = [(identity, len(templates), ", ".join(models[identity])) for identity, templates in everyone.items()]
        print_columns([("identity", "templates", "model"), *rows])
    else:
        echo(f"Nobody is enrolled in collection {collection}: `facerec enrol NAME PHOTO`.", err=True)
    _warn_of_other_models(gallery, [*chain.from_iterable(everyone.values())])
    print_damaged(gallery.collection, gallery.damaged)


def _warn_of_other_models(gallery: OpenGallery, templates: Sequence[Template]) -> None:
    try:
        in_use = gallery.model.model_id
    except ConfigurationError:
        return  # the list needs no model
    others = [template for template in templates if template.model_id != in_use]
    if others:
        echo(
            f"Made with another model than the one in use ({in_use}), so they never match: {len(others)} of "
            f"{counted(len(templates), 'template')}. `facerec gallery rebuild --collection {gallery.collection}` "
            "embeds their photos with the model in use; with --remove-old it then removes these templates.",
            err=True,
        )


@command.command("collections")
def collections() -> None:
    """List the collections that hold templates."""
    for name in open_gallery(DEFAULT_COLLECTION).templates.collections():
        echo(name)


@command.command("show")
@click.argument("name")
@collection_option
@exact_names_option
@json_option
def show(name: str, collection: str, *, exact_names: bool, as_json: bool) -> None:
    """Show each template of the person NAME, under all spellings that `enrol` takes for one person."""
    gallery = open_gallery(collection)
    try:
        templates = gallery.templates_of(name, exact=exact_names)
    finally:  # perhaps all templates of this person are damaged
        print_damaged(gallery.collection, gallery.damaged)
    if as_json:
        echo_json([_json_object(template) for template in templates])
        return
    rows = [
        (t.template_id, t.source, f"{t.probability:.3f}", f"{t.enrolled_at:%Y-%m-%d %H:%M}", t.model_id)
        for t in templates
    ]
    print_columns([("template", "photo", "probability", "enrolled (UTC)", "model"), *rows])
    if len(names := _names(templates)) > 1:
        echo(f"Under {len(names)} spellings: {', '.join(map(repr, names))}", err=True)


def _names(templates: Sequence[Template]) -> list[str]:
    return sorted({template.identity for template in templates})


def _json_object(template: Template) -> dict[str, Any]:
    return {
        "template_id": template.template_id,
        "identity": template.identity,
        "source": template.source,
        "photo": None if template.photo is None else template.photo.model_dump(),
        "probability": template.probability,
        "enrolled_at": template.enrolled_at.isoformat(),
        "model_id": template.model_id,
    }


@command.command("remove")
@click.argument("name", required=False)
@click.option("--template", "chosen", multiple=True, metavar="ID", help="Only this template; may be repeated.")
@collection_option
@exact_names_option
@yes_option
def remove(name: str | None, chosen: tuple[str, ...], collection: str, *, exact_names: bool, yes: bool) -> None:
    """Remove the person NAME, under all spellings that `enrol` takes for one person, or single templates.

    The photos are removed, too, and the published snapshot, which is then written again. Without NAME each --template
    is removed, also a damaged one whose name cannot be read.
    """
    gallery = open_gallery(collection)
    if name is None:
        _remove_by_id(gallery, chosen, yes=yes)
        return
    present = gallery.ids_of(name, exact=exact_names)
    names = " and ".join(map(repr, sorted(set(present.values()))))
    for identifier in chosen:
        if identifier not in present:
            raise FacerecError(f"{name!r} has no template {identifier!r}; `facerec gallery show` lists them")
    removed = chosen or list(present)
    if not yes:
        of_all = f"{len(removed)} of {counted(len(present), 'template')}"
        confirm(f"Remove {of_all} of {names}, photos included?")
    count = _remove(gallery, removed)
    echo(f"{counted(count, 'template')} of {names} removed")


def _remove_by_id(gallery: OpenGallery, chosen: Sequence[str], *, yes: bool) -> None:
    if not chosen:
        raise click.UsageError("Give NAME, or --template with the id of each template to remove.")
    if not yes:
        confirm(f"Remove {counted(len(chosen), 'template')}, photos included?")
    count = _remove(gallery, chosen)
    if not count:
        raise FacerecError(f"collection {gallery.collection} has no template {chosen[0]!r}")
    echo(f"{counted(count, 'template')} removed")


def _remove(gallery: OpenGallery, template_ids: Sequence[str]) -> int:
    settings, collection = gallery.settings, gallery.collection
    withdrawn = is_published(settings, collection)
    count = remove_templates(gallery.templates, gallery.photos, settings.gallery_bucket, collection, template_ids)
    renew_snapshot(settings, collection, withdrawn=withdrawn)
    return count
