"""`POST /`: an upload that is answered on the same connection with the worker's result, in one line of text."""

from collections.abc import Callable
from uuid import UUID

import structlog
from flask import Blueprint, Response, g, request

from facerec.api_keys import Scope
from facerec.web.asking import Answer, Asker, Question
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.auth.request_ids import new_request_id
from facerec.web.forms import read_photo
from facerec.web.replies import Reply

FIELD = "inputFile"


def blueprint(asker: Asker, max_upload_bytes: int) -> Blueprint:
    """Make the route of uploads."""
    web = Blueprint("uploads", __name__)

    @web.post("/")
    @needs(Scope.RECOGNISE)
    def upload() -> Response:
        collection = own_collection(presented_key())
        request_id, answer = ask(
            asker, lambda: Question(photo=read_photo(request, FIELD, max_upload_bytes), collection=collection)
        )
        return as_text(answer.reply, request_id)

    return web


def ask(asker: Asker, read: Callable[[], Question]) -> tuple[UUID, Answer]:
    """Ask for the client whose request is being answered; returns the new id of the request and the answer.

    `read` reads the body when there is room for it, and may raise `Declined`.
    """
    request_id = g.request_id = new_request_id(presented_key())
    with structlog.contextvars.bound_contextvars(request_id=str(request_id)):
        answer = asker.ask(
            request_id, client_name(), read, content_length=request.content_length or 0, close=request.close
        )
    return request_id, answer


def as_text(reply: Reply, request_id: UUID) -> Response:
    """Make a plain-text response with the request id, so that a report can name it."""
    response = Response(reply.text, status=reply.status, content_type="text/plain; charset=utf-8")
    response.headers["X-Request-Id"] = str(request_id)
    if reply.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(reply.retry_after_seconds)
    return response
