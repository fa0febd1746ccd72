"""Erasures: the list, the ledger of one while it is worked off, and its signed receipt."""

import hashlib

from flask import Blueprint, Response, abort, request

from facerec.api_keys import Scope
from facerec.erasure_records import ErasureRecord
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.erasures import NoReceipt, known_erasure, signed_receipt
from facerec.web.auth.access import needs
from facerec.web.pages.layout import error_page, link, page_collection, render, view_blueprint
from facerec.web.pages.paging import swapped
from facerec.web.pages.texts import text

_LISTED = 200
"""Complete erasures of the list, the newest ones."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of erasures."""
    web = view_blueprint("erasures", __name__, "/erasures")

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        collection = page_collection(services)
        ledger = services.erasures
        complete = [each for each in ledger.complete() if each.collection == collection][-_LISTED:]
        records = [*(each for each in ledger.open() if each.collection == collection), *complete]
        records.sort(key=lambda record: record.begun_at, reverse=True)
        return render("erasures.html", records=records, collection=collection)

    @web.get("/<erasure_id>")
    @needs(Scope.ENROL, page=True)
    def show(erasure_id: str) -> Response:
        record = _known(services, erasure_id)
        if swapped() != "ledger":
            return render_erasure(services, record)
        if request.args.get("seen") == _state_of(record):
            return Response(status=204)
        return render("erasure_ledger.html", record=record, state=_state_of(record), begun=False, refreshed=True)

    @web.get("/<erasure_id>/receipt")
    @needs(Scope.ENROL, page=True)
    def receipt(erasure_id: str) -> Response:
        record = _known(services, erasure_id)
        try:
            signed = signed_receipt(services, record)
        except NoReceipt as exc:
            return error_page(exc.status, str(exc), retry_after_seconds=exc.retry_after_seconds)
        name = {"Content-Disposition": f'attachment; filename="{_receipt_name(record)}"'}
        return Response(signed.model_dump_json(), headers=name, content_type="application/json")

    return web


def render_erasure(
    services: ApiServices, record: ErasureRecord, *, subject_key: str | None = None, name: str | None = None
) -> Response:
    """Make the page of an erasure; of one that has just begun with its subject key and the name of the person."""
    begun = subject_key is not None
    moved = {"HX-Replace-Url": link("page_erasures.show", erasure_id=record.erasure_id)} if begun else {}
    return render(
        "erasure.html",
        headers=moved,
        record=record,
        state=_state_of(record),
        receipt_name=_receipt_name(record),
        signs=services.settings.erasure.signing_key is not None,
        subject_key=subject_key,
        name=name,
        begun=begun,
        refreshed=False,
    )


def _state_of(record: ErasureRecord) -> str:
    """Return what changes whenever the ledger does."""
    return hashlib.sha256(record.to_json().encode()).hexdigest()[:16]


def _receipt_name(record: ErasureRecord) -> str:
    """Return the file name of a receipt."""
    return f"receipt-{record.erasure_id}.json"


def _known(services: ApiServices, erasure_id: str) -> ErasureRecord:
    record = known_erasure(services, erasure_id)
    if record is None:
        abort(error_page(404, text("erasures.missing")))
    return record
