"""Stores what an archive has in a collection, under the ids that enrolment would give."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from facerec.errors import AlreadyEnrolled
from facerec.gallery.archive import Remembered
from facerec.gallery.enrolment import face_place, store_template, template_id
from facerec.gallery.names import same_person
from facerec.gallery.removal import photo_key
from facerec.message_base import ObjectRef
from facerec.ports import ObjectStore, PersonRecords, Template, TemplateStore


def restore(
    template: Template,
    photo: bytes | None,
    collection: str,
    bucket: str,
    templates: TemplateStore,
    photos: ObjectStore,
    *,
    exact_names: bool = False,
) -> bool:
    """Store one archived template in a collection; returns whether it was new. A repeated call changes nothing.

    Raises `AlreadyEnrolled` if the photo belongs to another person there. With its photo the template gets the id that
    enrolment would give it; without one it keeps its own.
    """
    identifier, reference = restored_id(template, photo, collection), None
    if photo is not None:
        key = photo_key(collection, identifier, template.source)
        reference = ObjectRef(bucket=bucket, key=key, size=len(photo))
    restored = replace(template, template_id=identifier, collection=collection, photo=reference)
    try:
        store_template(templates, photos, restored, photo)
    except AlreadyEnrolled as exc:
        if not same_person(exc.identity, template.identity, exact=exact_names):
            raise
        return False
    return True


def restored_id(template: Template, photo: bytes | None, collection: str) -> str:
    """Return the id that an archived template has in a collection, which `restore` gives it."""
    if photo is None:
        return template.template_id
    return template_id(collection, template.model_id, photo, face_place(template, photo))


def restore_remembered(
    remembered: Remembered,
    collection: str,
    ids: Mapping[str, str],
    name: Callable[[str], str],
    templates: TemplateStore,
    records: PersonRecords,
) -> None:
    """Store what an archive remembers in a collection; a repeated call changes nothing.

    `ids` are those of the restored templates in the collection by the archived ones, and `name` returns the
    collection's spelling of a name. A merge without a restored template is left out.
    """
    for rejection in remembered.rejections:
        templates.reject(replace(rejection, collection=collection, identity=name(rejection.identity)))
    for record in remembered.merges:
        moved = {before: tuple(ids[each] for each in own if each in ids) for before, own in record.templates.items()}
        kept = {before: own for before, own in moved.items() if own}
        if kept:
            into = name(record.into)
            records.put_merge(replace(record, collection=collection, into=into, templates=kept))
    for each in remembered.names:
        records.add_name(collection, name(each))
