"""The Flask application, made from what it needs; it holds no global state."""

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from facerec.ports import ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.text import one_line
from facerec.web import metrics, pages, replies, results, uploads
from facerec.web.admission import Admission
from facerec.web.auth.access import UNDEFINED, Gate, behind_proxies
from facerec.web.auth.hook import guard
from facerec.web.forms import FORM_MEMORY_BYTES, FORM_OVERHEAD_BYTES, MAX_FORM_PARTS, UploadRequest
from facerec.web.headers import HEADERS, PAGE_POLICY, TRANSPORT_SECURITY
from facerec.web.inbox import Waiters
from facerec.web.readiness import Readiness

log = structlog.get_logger(__name__)


class _App(Flask):
    request_class = UploadRequest


def create_app(
    *,
    settings: Settings,
    store: ObjectStore,
    queue: TaskQueue,
    reply_to: str,
    waiters: Waiters,
    admission: Admission,
    readiness: Readiness,
    measured: metrics.WebMetrics,
    gate: Gate,
) -> Flask:
    """Make the application.

    `reply_to` names the response queue whose results resolve `waiters`; `admission` decides how many uploads may wait,
    `gate` who is served at all; `measured` sees every request.
    """
    app = _App("facerec.web", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.web.max_upload_bytes + FORM_OVERHEAD_BYTES,
        MAX_FORM_MEMORY_SIZE=FORM_MEMORY_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    measured.instrument(app)
    desk = uploads.Uploads(
        settings=settings,
        store=store,
        queue=queue,
        reply_to=reply_to,
        waiters=waiters,
        admission=admission,
        watch=measured.upload,
    )
    app.register_blueprint(uploads.blueprint(desk))
    app.register_blueprint(
        results.blueprint(settings=settings, store=store, readiness=readiness, open_to_all=gate.open_to_all)
    )
    app.register_blueprint(pages.blueprint(settings, open_to_all=gate.open_to_all))
    app.register_blueprint(metrics.blueprint(measured))
    guard(app, gate, _worded)
    app.wsgi_app = behind_proxies(app.wsgi_app, settings.web.trusted_proxies)  # type: ignore[assignment] # as Flask documents
    app.register_error_handler(HTTPException, lambda exc: _problem(exc, settings))
    app.register_error_handler(Exception, _fault)
    app.after_request(_secured)
    return app


def _problem(exc: HTTPException, settings: Settings) -> Response:
    status = exc.code or 500
    match exc:
        case NotFound():
            sentence = f"there is nothing at {request.path}: pictures are uploaded with POST to /"
        case MethodNotAllowed():
            allowed = " or ".join(sorted(set(exc.valid_methods or ()) - {"HEAD", "OPTIONS"}))
            sentence = f"{request.method} is not possible here: use {allowed}"
        case RequestEntityTooLarge():
            sentence = replies.too_large(settings.web.max_upload_bytes).text
        case _:
            sentence = exc.description or "the request cannot be answered"
    response = _worded(status, sentence)
    for name, value in exc.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _fault(exc: Exception) -> Response:
    known = {"request_id": str(g.request_id)} if "request_id" in g else {}
    log.error("request_failed", method=request.method, path=request.path, exc_info=exc, **known)
    return _worded(500, "the server made a mistake that it has noted: try again later")


def _worded(status: int, sentence: str, code: int = UNDEFINED) -> Response:
    """JSON where programs ask, plain text elsewhere."""
    sentence = one_line(sentence)
    if request.path.startswith("/api/"):
        return results.error(status, sentence, code)
    return Response(sentence, status=status, content_type="text/plain; charset=utf-8")


def _secured(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers["Content-Security-Policy"] = PAGE_POLICY
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
