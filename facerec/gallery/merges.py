"""The records of renames and merges: what a new one covers, which one is meant, and what it still covers later.

Pure, except for `follow_replacements`.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from facerec.errors import FacerecError
from facerec.gallery.names import same_person
from facerec.ports import EnrolledPeople, MergeRecord, PersonRecords
from facerec.text import counted

MAX_MERGED = 5_000
"""Templates of one merge: the ids of two models fit into one item of DynamoDB, 400 kB."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What carries a person's name, in any spelling."""

    templates: dict[str, str]
    """The spelling in each by its id, as of the rejections."""
    rejections: dict[str, str]
    kept: list[str]

    @property
    def nothing(self) -> bool:
        """Whether there is no such person; rejections alone are none."""
        return not self.templates and not self.kept


def record_of(
    begun: MergeRecord | None,
    collection: str,
    own: Belongings,
    source: str,
    into: str,
    *,
    by: str,
    at: datetime,
    rename: bool = False,
) -> MergeRecord:
    """Return the record to write: a new one, or that of the interrupted call with what the source has now.

    Raises `FacerecError` for more templates than one record can have.
    """
    templates = {**({} if begun is None else _by_id(begun.templates)), **own.templates}
    rejections = {**({} if begun is None else _by_id(begun.rejections)), **own.rejections}
    if len(templates) + len(rejections) > MAX_MERGED:
        raise FacerecError(
            f"{source!r} has {counted(len(templates), 'template')}; at most {MAX_MERGED} can be given another name"
        )
    return MergeRecord(
        merge_id=uuid.uuid4().hex if begun is None else begun.merge_id,
        collection=collection,
        source=min(templates.values(), default=source),
        into=into,
        templates=_by_name(templates),
        merged_at=at if begun is None else begun.merged_at,
        by=by if begun is None or not begun.by else begun.by,
        rejections=_by_name(rejections),
        rename=rename,
    )


def latest_merge(
    records: Iterable[MergeRecord], source: str, into: str, *, exact: bool, renames: bool = False
) -> MergeRecord | None:
    """Return the latest record of the two people; with `renames` that of a rename."""
    found = [
        record
        for record in records
        if same_person(record.source, source, exact=exact)
        and same_person(record.into, into, exact=exact)
        and (record.rename or not renames)
    ]
    return found[-1] if found else None


def still_moved(moved: Mapping[str, Sequence[str]], owners: Mapping[str, str], into: str) -> dict[str, tuple[str, ...]]:
    """Return what a merge has moved as far as it exists and is the merged person's, or was given back already."""
    own = {
        name: tuple(each for each in ids if same_person(owners.get(each, ""), into) or owners.get(each) == name)
        for name, ids in moved.items()
    }
    return {name: found for name, found in own.items() if found}


def without_templates(record: MergeRecord, template_ids: Iterable[str]) -> MergeRecord:
    """Return the record as if these templates had not been moved."""
    left_out = set(template_ids)
    templates = {name: tuple(each for each in own if each not in left_out) for name, own in record.templates.items()}
    return replace(record, templates={name: own for name, own in templates.items() if own})


def follow_replacements(
    enrolled: EnrolledPeople, records: PersonRecords, collection: str, replaced: Mapping[str, str]
) -> None:
    """Let merges cover new templates, by the ids of those that they replace after a change of the model.

    To be called before the old templates are removed; may be repeated. Ids of templates that are gone are left out.
    """
    merges = records.merges(collection)
    if not any(replaced.keys() & set(record.template_ids) for record in merges):
        return
    owners = enrolled.owners(collection)
    for record in merges:
        followed = {
            name: tuple(
                dict.fromkeys(each for each in (*own, *(replaced.get(old, old) for old in own)) if each in owners)
            )
            for name, own in record.templates.items()
        }
        if followed != record.templates:
            records.put_merge(replace(record, templates=followed))


def _by_id(moved: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {each: name for name, ids in moved.items() for each in ids}


def _by_name(moved: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(each for each in moved if moved[each] == name)) for name in sorted({*moved.values()})}
