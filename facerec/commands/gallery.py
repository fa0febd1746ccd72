"""`facerec gallery`: who is enrolled."""

import json
from collections.abc import Sequence
from typing import Any

import click

from facerec.commands.gallery_access import OpenGallery, collection_option, counted, open_gallery
from facerec.commands.gallery_files import export, import_, import_pt, rebuild
from facerec.commands.terminal import json_option, print_columns
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.enrolment import remove_templates
from facerec.messages import DEFAULT_COLLECTION
from facerec.ports import Template


@click.group("gallery")
def command() -> None:
    """List, show, remove, export, import and rebuild enrolled people.

    \b
    Examples:
      facerec gallery list
      facerec gallery remove "Ada Lovelace"
      facerec gallery export --photos backup.facerec
      facerec gallery import backup.facerec
      facerec gallery rebuild --all-collections     # after a change of the model
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


for _subcommand in (export, import_, import_pt, rebuild):
    command.add_command(_subcommand)


@command.command("list")
@collection_option
@json_option
def list_(collection: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List everyone with the number of their templates and the models these belong to."""
    gallery = open_gallery(collection)
    everyone = gallery.everyone()
    models = {identity: sorted({t.model_id for t in templates}) for identity, templates in everyone.items()}
    if as_json:
        people = [
            {"identity": identity, "templates": len(templates), "models": models[identity]}
            for identity, templates in everyone.items()
        ]
        click.echo(json.dumps(people, indent=2, ensure_ascii=False))
    elif everyone:
        rows = [(identity, len(templates), ", ".join(models[identity])) for identity, templates in everyone.items()]
        print_columns([("identity", "templates", "model"), *rows])
    else:
        click.echo(f"Nobody is enrolled in collection {collection}: `facerec enrol NAME PHOTO`.", err=True)
    _warn_of_other_models(gallery, [template for templates in everyone.values() for template in templates])


@command.command("collections")
def collections() -> None:
    """List the collections that hold templates."""
    for name in open_gallery(DEFAULT_COLLECTION).templates.collections():
        click.echo(name)


@command.command("show")
@click.argument("name")
@collection_option
@json_option
def show(name: str, collection: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Show each template of the person NAME."""
    templates = open_gallery(collection).templates_of(name)
    if as_json:
        click.echo(json.dumps([_described(template) for template in templates], indent=2, ensure_ascii=False))
        return
    rows = [
        (t.template_id, t.source, f"{t.probability:.3f}", f"{t.enrolled_at:%Y-%m-%d %H:%M}", t.model_id)
        for t in templates
    ]
    print_columns([("template", "photo", "probability", "enrolled (UTC)", "model"), *rows])


@command.command("remove")
@click.argument("name")
@click.option("--template", "chosen", multiple=True, metavar="ID", help="Only this template; may be repeated.")
@collection_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, chosen: tuple[str, ...], collection: str, yes: bool) -> None:  # noqa: FBT001 - as above
    """Remove the person NAME, or single templates, with the photos.

    \b
    Examples:
      facerec gallery remove "Ada Lovelace"
      facerec gallery remove "Ada Lovelace" --template 0123456789abcdef0123456789abcdef --yes
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    gallery = open_gallery(collection)
    there = [template.template_id for template in gallery.templates_of(name)]
    for identifier in chosen:
        if identifier not in there:
            raise FacerecError(f"{name!r} has no template {identifier!r}; `facerec gallery show` lists them")
    doomed = chosen or there
    if not yes:
        click.confirm(f"Remove {len(doomed)} of {counted(len(there))} of {name!r}, photos included?", abort=True)
    removed = remove_templates(
        gallery.templates, gallery.photos, gallery.settings.gallery_bucket, gallery.collection, doomed
    )
    click.echo(f"{counted(removed)} of {name!r} removed")


def _described(template: Template) -> dict[str, Any]:
    return {
        "template_id": template.template_id,
        "identity": template.identity,
        "source": template.source,
        "photo": None if template.photo is None else template.photo.model_dump(),
        "probability": template.probability,
        "enrolled_at": template.enrolled_at.isoformat(),
        "model_id": template.model_id,
    }


def _warn_of_other_models(gallery: OpenGallery, templates: Sequence[Template]) -> None:
    try:
        in_use = gallery.model.model_id
    except ConfigurationError:
        return  # the list is as good without a model on this machine
    others = [template for template in templates if template.model_id != in_use]
    if others:
        click.echo(
            f"Made with another model than the one in use ({in_use}), so that they match nobody: {len(others)} of "
            f"{counted(len(templates))}. `facerec gallery rebuild --collection {gallery.collection}` embeds their "
            "photos with the model in use; with --remove-old these templates go then.",
            err=True,
        )
