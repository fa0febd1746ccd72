"""`facerec people rename`, `merge`, `merges` and `unmerge`: which templates are one person's."""

from itertools import chain
from typing import Any

import click

from facerec.commands.gallery_snapshot import renew_snapshot
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import (
    OTHER_PERSON_STATUS,
    collection_option,
    exact_names_option,
    json_option,
    operator,
    print_columns,
    yes_option,
)
from facerec.echo import confirm, echo, echo_error, echo_json
from facerec.gallery.people import PersonExists
from facerec.ports import MergeRecord
from facerec.text import counted


@click.command("rename")
@click.argument("old")
@click.argument("new")
@collection_option
@exact_names_option
def rename(old: str, new: str, collection: str, *, exact_names: bool) -> None:
    """Give the person OLD the name NEW.

    The name of another person is refused with exit status 3: `merge` makes two people one. NEW may be another spelling
    of OLD; a person with several spellings has one then. An interrupted rename is completed by the same command.

    \b
    Examples:
      facerec people rename "Ada Byron" "Ada Lovelace"
      facerec people rename "ada lovelace" "Ada Lovelace" --collection staff
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    gallery = open_gallery(collection)
    try:
        count = gallery.people.rename(collection, old, new, exact=exact_names)
    except PersonExists as exc:
        echo_error(str(exc))
        raise SystemExit(OTHER_PERSON_STATUS) from exc
    renew_snapshot(gallery.settings, collection)
    echo(f"{counted(count, 'template')} of {old!r} renamed to {new!r}")


@click.command("merge")
@click.argument("source")
@click.argument("into")
@collection_option
@exact_names_option
@yes_option
@json_option
def merge(source: str, into: str, collection: str, *, exact_names: bool, yes: bool, as_json: bool) -> None:
    """Give all templates of the person SOURCE to the person INTO.

    It is recorded: `unmerge` takes it back. What was remembered as "this is not SOURCE" then says "this is not INTO".
    An interrupted merge is completed by the same command.

    \b
    Examples:
      facerec people merge "A. Lovelace" "Ada Lovelace"
      facerec people merge "A. Lovelace" "Ada Lovelace" --yes --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    gallery = open_gallery(collection)
    if not yes:
        count = len(gallery.people.template_ids(collection, source, exact=exact_names))
        confirm(f"Give {counted(count, 'template')} of {source!r} to {into!r}?")
    record = gallery.people.merge(collection, source, into, by=operator(), exact=exact_names)
    _print(gallery, record, f"of {record.source!r} given to {record.into!r}", as_json=as_json)


@click.command("merges")
@collection_option
@json_option
def merges(collection: str, *, as_json: bool) -> None:
    """List the merges that `unmerge` can take back, oldest first."""
    found = open_gallery(collection).people.merges(collection)
    if as_json:
        echo_json([_json_object(record) for record in found])
    elif found:
        rows = [
            (
                record.merge_id,
                record.source,
                record.into,
                len(record.template_ids),
                f"{record.merged_at:%Y-%m-%d %H:%M}",
                record.by or "-",
            )
            for record in found
        ]
        print_columns([("merge", "person", "merged into", "templates", "merged (UTC)", "by"), *rows])
    else:
        echo(f"Collection {collection} has no merge that can be taken back.", err=True)


@click.command("unmerge")
@click.argument("merge_or_name", metavar="MERGE|NAME")
@collection_option
@json_option
def unmerge(merge_or_name: str, collection: str, *, as_json: bool) -> None:
    """Take a merge back: each of its templates that still exists gets its old name again.

    MERGE is an id of `facerec people merges`; with the NAME of the merged person it is the latest merge. Merges can be
    taken back in any order.

    \b
    Examples:
      facerec people unmerge "A. Lovelace"
      facerec people unmerge 0123456789abcdef0123456789abcdef --collection staff
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    gallery = open_gallery(collection)
    record = gallery.people.unmerge(collection, merge_or_name)
    _print(gallery, record, f"of {record.into!r} given back to {record.source!r}", as_json=as_json)


def _print(gallery: OpenGallery, record: MergeRecord, became: str, *, as_json: bool) -> None:
    renew_snapshot(gallery.settings, gallery.collection)
    if as_json:
        echo_json(_json_object(record))
    else:
        echo(f"{counted(len(record.template_ids), 'template')} {became} (merge {record.merge_id})")


def _json_object(record: MergeRecord) -> dict[str, Any]:
    return {
        "merge_id": record.merge_id,
        "source": record.source,
        "into": record.into,
        "templates": record.templates,
        "rejections": [*chain.from_iterable(record.rejections.values())],
        "merged_at": record.merged_at.isoformat(),
        "by": record.by,
    }
