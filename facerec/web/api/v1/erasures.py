"""The ledger of an erasure: what was removed where, and what is still owed."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import structlog
from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, Field

from facerec.api_answers import ErasedPlace, Erasure, ErasureBegun, Receipt
from facerec.api_keys import Scope
from facerec.erasure_records import ErasureRecord
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.erasure import Begun
from facerec.gallery.people import as_template_id
from facerec.gallery.receipt_signing import SigningKey
from facerec.gallery.receipts import content_of
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import PREFIX, as_json, described, errors
from facerec.web.auth.access import needs, presented_key
from facerec.web.auth.collections import may_use_or_owns
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS
from facerec.web.results import json_error

log = structlog.get_logger(__name__)


class ErasurePath(BaseModel):
    """An erasure."""

    erasure_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]


class NoReceipt(FacerecError):
    """This server cannot sign a receipt; the text says why."""

    def __init__(self, status: int, sentence: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after_seconds = status, retry_after_seconds


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("erasures", __name__, "What was removed where, and what is still owed.")

    @api.get("/erasures/<erasure_id>", responses={200: Erasure, **errors(404)})
    @needs(Scope.ENROL)
    def get_erasure(path: ErasurePath) -> Response:
        """Read the ledger of an erasure."""
        record = known_erasure(services, path.erasure_id)
        if record is None:
            return _missing(path)
        return as_json(
            Erasure(
                erasure_id=UUID(record.erasure_id),
                collection=record.collection,
                complete=record.complete,
                begun_at=record.begun_at,
                completed_at=record.completed_at,
                by=record.by,
                subject_hashes=record.subject_hashes,
                places=tuple(ErasedPlace.model_validate(place.model_dump()) for place in record.places),
            )
        )

    @api.get("/erasures/<erasure_id>/receipt", responses={200: Receipt, **errors(404)})
    @needs(Scope.ENROL)
    def get_receipt(path: ErasurePath) -> Response:
        """Read the signed receipt of an erasure. It says what is still owed, too."""
        record = known_erasure(services, path.erasure_id)
        if record is None:
            return _missing(path)
        try:
            return as_json(signed_receipt(services, record))
        except NoReceipt as exc:
            return json_error(exc.status, str(exc), retry_after_seconds=exc.retry_after_seconds)

    return api


def known_erasure(services: ApiServices, erasure_id: str) -> ErasureRecord | None:
    """Return the erasure, if the caller may see it."""
    identifier = as_template_id(erasure_id)
    record = None if identifier is None else services.erasures.get(identifier)
    if record is None or not may_use_or_owns(presented_key(), record.collection, services.collections):
        return None
    return record


def signed_receipt(services: ApiServices, record: ErasureRecord) -> Receipt:
    """Return the receipt of an erasure; raises `NoReceipt`."""
    signing_key = services.settings.erasure.signing_key
    if signing_key is None:
        raise NoReceipt(404, "this server signs no receipts: its operator has not set FACEREC_ERASURE__SIGNING_KEY")
    try:
        key = SigningKey.load(signing_key)
    except ConfigurationError as exc:
        log.error("receipt_key_unusable", reason=str(exc))  # noqa: TRY400 - no bug
        sentence = "this server cannot read the key that signs receipts: its operator finds the reason in the log"
        raise NoReceipt(503, sentence, UNAVAILABLE_RETRY_SECONDS) from exc
    return Receipt.model_validate(key.sign(content_of(record, datetime.now(UTC))))


def _missing(path: ErasurePath) -> Response:
    return json_error(404, f"there is no erasure {path.erasure_id}")


def erasure_begun(begun: Begun) -> Response:
    """Make the response of an erasure that has begun."""
    answer = ErasureBegun(erasure_id=UUID(begun.record.erasure_id), subject_key=begun.subject_key)
    return as_json(answer, 202, {"Location": f"{PREFIX}/erasures/{answer.erasure_id}"})
