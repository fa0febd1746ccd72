"""A person: photos, rename, merge and take back, delete."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from flask import Blueprint, Response, request
from markupsafe import Markup

from facerec.api_keys import Scope
from facerec.erasure_records import ErasureRecord
from facerec.gallery.names import same_person
from facerec.gallery.people import NoSuchPerson, PersonExists
from facerec.ports import MergeRecord, TemplateEntry
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.people import RULE
from facerec.web.auth.access import client_name, needs
from facerec.web.pages.erasures import render_erasure
from facerec.web.pages.layout import is_fragment, link, page_collection, render, view_blueprint
from facerec.web.pages.paging import requested_part
from facerec.web.pages.texts import Number, markup

_CANDIDATES = 8
"""People whom a search for the other half of a merge shows."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("person", __name__, "/people")
    answer_missing_people(web, services)
    persons = services.persons

    @web.get("/<person:name>", **RULE)
    @needs(Scope.ENROL, page=True)
    def index(name: str) -> Response:
        return render_person(services, page_collection(services), name)

    @web.post("/<person:name>/rename", **RULE)
    @needs(Scope.ENROL, page=True)
    def rename(name: str) -> Response:
        collection, new = page_collection(services), request.form.get("name", "")
        try:
            persons.rename(collection, name, new)
        except PersonExists as exc:
            other = persons.person(collection, exc.name)
            return render("person_taken.html", headers=swap_into("#taken"), name=name, other=other.name)
        renamed = persons.person(collection, new)
        return render_person(
            services, collection, renamed.name, notice=markup("person.renamed", old=name, new=renamed.name)
        )

    @web.post("/<person:name>/delete", **RULE)
    @needs(Scope.ENROL, page=True)
    def delete(name: str) -> Response:
        collection = page_collection(services)
        begun = services.erasures.begin(collection, name, f"page, {client_name()}")
        if begun is None:
            raise NoSuchPerson(name, collection)
        return render_erasure(services, begun.record, subject_key=begun.subject_key, name=name)

    _add_merges(web, services)
    return web


def _add_merges(web: Blueprint, services: ApiServices) -> None:
    persons = services.persons

    @web.get("/<person:name>/merge", **RULE)
    @needs(Scope.ENROL, page=True)
    def choose(name: str) -> Response:
        """Show whom a person can be merged into, or both side by side."""
        collection = page_collection(services)
        source = persons.person(collection, name)
        if into := request.args.get("into"):
            both = (source.summary(), persons.person(collection, into).summary())
            return render("merge_both.html", source=both[0], into=both[1])
        search = request.args.get("q", "").strip()
        found = persons.page(collection, search=search, limit=_CANDIDATES + len(source.spellings))
        others = [each for each in found.people if not same_person(each.name, name)][:_CANDIDATES]
        template = "merge_found.html" if "q" in request.args else "merge.html"
        return render(template, name=source.name, others=others)

    @web.post("/<person:name>/merge", **RULE)
    @needs(Scope.ENROL, page=True)
    def merge(name: str) -> Response:
        collection, by = page_collection(services), f"page, {client_name()}"
        merged = persons.merge(collection, name, request.form.get("into", ""), by=by)
        count = Number(len(merged.template_ids))
        notice = markup("person.merged", source=merged.source, into=merged.into, n=count)
        undo = merged if merged.template_ids else None
        return render_person(services, collection, merged.into, notice=notice, undo=undo)

    @web.post("/merges/<merge_id>/undo")
    @needs(Scope.ENROL, page=True)
    def undo(merge_id: str) -> Response:
        collection = page_collection(services)
        record = persons.unmerge(collection, merge_id)
        notice = markup("person.unmerged", source=record.source, into=record.into, n=Number(len(record.template_ids)))
        try:
            return render_person(services, collection, record.into, notice=notice, other=record.source)
        except NoSuchPerson:  # it had nothing but what it has given back
            return render_person(services, collection, record.source, notice=notice)


def render_person(
    services: ApiServices,
    collection: str,
    name: str,
    *,
    notice: Markup | None = None,
    undo: MergeRecord | None = None,
    other: str | None = None,
    erasure: ErasureRecord | None = None,
) -> Response:
    """Make the page of a person; raises `NoSuchPerson`.

    After an action `notice` says what it did, with a button that takes the merge `undo` back, and links to the person
    `other` or to an erasure.
    """
    person, part = services.persons.person(collection, name), requested_part()
    entries = newest_first(person.entries)
    values: dict[str, Any] = {
        "person": person.summary(),
        "entries": entries[part.start : part.stop],
        "part": part,
        "total": len(entries),
    }
    if part.appended:
        return render("person_photos.html", **values)
    # After an action the address is that of the person who is shown, who may have another name now.
    moved = {} if notice is None else {"HX-Replace-Url": link("page_person.index", name=person.name)}
    merges = [each for each in services.persons.merges(collection) if same_person(each.into, person.name)]
    return render(
        "person.html", headers=moved, **values, merges=merges, notice=notice, undo=undo, other=other, erasure=erasure
    )


def newest_first(entries: Iterable[TemplateEntry]) -> list[TemplateEntry]:
    """Return a person's templates as its page shows them."""
    return sorted(entries, key=attrgetter("enrolled_at", "template_id"), reverse=True)


def swap_into(target: str, part: str = "#fragment", way: str = "innerHTML") -> dict[str, str]:
    """Return the headers with which htmx swaps a part of the response elsewhere than the request said."""
    return {"HX-Retarget": target, "HX-Reselect": part, "HX-Reswap": way}


def answer_missing_people(web: Blueprint, services: ApiServices) -> None:
    """Answer for a person who is not there, or not any more, with a page that says where to go on."""

    def missing(exc: NoSuchPerson) -> Response:
        collection = page_collection(services)
        known = services.persons.index.people(collection)
        merges = [each for each in services.persons.merges(collection) if same_person(each.source, exc.name)]
        status, headers = 404, {}
        if is_fragment():  # it takes the place of the stale page, which htmx does for a success alone
            status, headers = 200, swap_into("#view", "#view", "outerHTML")
        return render(
            "person_missing.html",
            status,
            headers,
            name=exc.name,
            into=merges[-1].into if merges else None,
            closest=known.closest(exc.name),
        )

    web.register_error_handler(NoSuchPerson, missing)
