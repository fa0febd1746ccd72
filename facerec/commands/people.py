"""`facerec people`: the people of a collection; list, show and remove are also commands of `facerec gallery`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import click

from facerec import bootstrap
from facerec.commands.damaged import print_damaged
from facerec.commands.gallery_snapshot import is_published, renew_snapshot
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.people_audit import audit
from facerec.commands.people_erasure import (
    access_log,
    erasures,
    readers,
    report_removal,
    wait_option,
    work_off,
)
from facerec.commands.people_merge import merge, merges, rename, unmerge
from facerec.commands.people_not import not_
from facerec.commands.people_receipt import receipt, receipt_key
from facerec.commands.people_unknown import unknown
from facerec.commands.terminal import (
    collection_option,
    exact_names_option,
    json_option,
    operator,
    print_columns,
    yes_option,
)
from facerec.echo import confirm, echo, echo_json
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.people import Person, as_template_id, persons_of
from facerec.ports import Template
from facerec.text import counted


@click.group("people")
def command() -> None:
    """List, show, rename, merge and remove the people of a collection, and remember who somebody is not.

    Names are compared as by `enrol`: upper and lower case, blanks and the like make no other person.

    \b
    Examples:
      facerec people list
      facerec people show "Ada Lovelace"
      facerec people rename "Ada" "Ada Lovelace"
      facerec people merge "A. Lovelace" "Ada Lovelace"
      facerec people unmerge "A. Lovelace"
      facerec people not "Ada Lovelace" --photo somebody_else.jpg
      facerec people audit
      facerec people remove "Ada Lovelace"
      facerec people erasures
      facerec people receipt 3f6c0d5e9b1a4c7d8e2f0a1b2c3d4e5f --out receipt.json

    Exit status: 0 done, 1 not possible (the reason is on standard error), 2 wrong use, 3 the name is another person's,
    4 a removal has begun, and a place is still owed.
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


for _command in (
    audit,
    rename,
    merge,
    merges,
    unmerge,
    not_,
    erasures,
    receipt,
    receipt_key,
    readers,
    access_log,
    unknown,
):
    command.add_command(_command)


@command.command("list")
@collection_option
@json_option
def list_(collection: str, *, as_json: bool) -> None:
    """List everyone with the number of their templates, the first and last enrolment, and the models."""
    gallery = open_gallery(collection)
    templates = [*chain.from_iterable(gallery.everyone().values())]
    people = persons_of(templates, gallery.people.records.names(collection))
    if as_json:
        echo_json([_listed(person) for person in people])
    elif people:
        rows = [
            (person.name, person.templates, _day(person.first_enrolled), _day(person.last_enrolled), _models(person))
            for person in people
        ]
        print_columns([("identity", "templates", "first enrolled", "last enrolled", "model"), *rows])
    else:
        echo(f"Nobody is enrolled in collection {collection}: `facerec enrol NAME PHOTO`.", err=True)
    _warn_of_other_models(gallery, templates)
    print_damaged(gallery.collection, gallery.damaged)


def _listed(person: Person) -> dict[str, Any]:
    times = {"first_enrolled": person.first_enrolled, "last_enrolled": person.last_enrolled}
    return {
        "identity": person.name,
        "templates": person.templates,
        "models": list(person.models),
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }


def _day(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d}"


def _models(person: Person) -> str:
    return ", ".join(person.models) or "-"


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
        "external_id": template.external_id,
        "enrolled_at": template.enrolled_at.isoformat(),
        "model_id": template.model_id,
    }


def removal_command(wait: str) -> click.Command:
    """Make the command `remove`, which waits so long by default."""

    @click.command("remove")
    @click.argument("name", required=False)
    @click.option("--template", "chosen", multiple=True, metavar="ID", help="Only this template; may be repeated.")
    @collection_option
    @exact_names_option
    @yes_option
    @wait_option(wait)
    @json_option
    def remove(
        name: str | None,
        chosen: tuple[str, ...],
        collection: str,
        wait: timedelta,
        *,
        exact_names: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        """Remove the person NAME, under all spellings that `enrol` takes for one person, or single templates.

        Templates, photos and published snapshots go at once; the snapshot is then written again. Results, uploads and
        what workers hold are a person's, too: a ledger names each place until it is clean. Without NAME each --template
        is removed, also a damaged one whose name cannot be read.
        """
        gallery = open_gallery(collection)
        wanted = [_template_id(each) for each in chosen]
        who = _confirmed(gallery, name, wanted, exact=exact_names, yes=yes)
        use_cases = bootstrap.erasures(gallery.settings)
        withdrawn = is_published(gallery.settings, collection)
        if name is None or wanted:
            begun = use_cases.begin_photos(collection, wanted, operator())
        else:
            begun = use_cases.begin(collection, name, operator(), exact=exact_names)
        renew_snapshot(gallery.settings, collection, withdrawn=withdrawn)
        if begun is None:
            raise FacerecError(f"collection {collection} has no template {', '.join(map(repr, wanted)) or name!r}")
        record = work_off(use_cases, begun.record, wait, as_json=as_json)
        report_removal(begun, record, who, waited=bool(wait), as_json=as_json)

    return remove


remove = removal_command("5m")
command.add_command(remove)


def _confirmed(gallery: OpenGallery, name: str | None, wanted: Sequence[str], *, exact: bool, yes: bool) -> str:
    """Check what is to be removed, and ask; returns whose it is, to show to people."""
    if name is None:
        if not wanted:
            raise click.UsageError("Give NAME, or --template with the id of each template to remove.")
        if not yes:
            confirm(f"Remove {counted(len(wanted), 'template')}, photos included?")
        return ""
    present = gallery.people.template_ids(gallery.collection, name, exact=exact)
    names = " and ".join(map(repr, sorted(set(present.values())))) or repr(name)
    for identifier in wanted:
        if identifier not in present:
            raise FacerecError(f"{name!r} has no template {identifier!r}; `facerec people show` lists them")
    if not yes:
        of_all = f"{len(wanted or present)} of {counted(len(present), 'template')}"
        confirm(f"Remove {of_all} of {names}, photos included?")
    return f" of {names}"


def _template_id(text: str) -> str:
    """Return the id that a command or an API has shown; a damaged template may have any."""
    return as_template_id(text) or text
