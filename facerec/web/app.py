"""The Flask application, without global state."""

from collections.abc import Callable

import structlog
from flask import Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from facerec.access_records import AccessRecord
from facerec.gallery.erasure import Erasures
from facerec.gallery.people import People
from facerec.gallery.unknown_people import Unknown
from facerec.ports import Collections, EnrolledPeople, Jobs, ObjectStore, PersonRecords, TaskQueue, UnknownPeople
from facerec.settings import Settings
from facerec.text import one_line
from facerec.web import forms, metrics, replies, results, uploads
from facerec.web.admission import Admission
from facerec.web.api import ApiServices, compreface, register_apis, rekognition
from facerec.web.api.v1.description import DescribedApp
from facerec.web.asking import Asker
from facerec.web.auth.access import AccessControl, install_access_control, is_page
from facerec.web.auth.denials import UNDEFINED, Denial
from facerec.web.fleet.watch import FleetWatch
from facerec.web.inbox import Waiters
from facerec.web.jobs.calls import JobCalls
from facerec.web.pages import layout, register_pages, sign_in
from facerec.web.readiness import Readiness, health_blueprint

log = structlog.get_logger(__name__)

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`, with which browsers hide the origin of our own page's form, too.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response; no other origin may use it (there is no CORS)."""

TRANSPORT_SECURITY = "max-age=31536000"
"""For responses over HTTPS; it does not cover other names of the domain."""


class _App(DescribedApp):
    request_class = forms.UploadRequest


def create_app(
    *,
    settings: Settings,
    store: ObjectStore,
    people: EnrolledPeople,
    records: PersonRecords,
    erasures: Erasures,
    collections: Collections,
    queue: TaskQueue,
    reply_to: str,
    waiters: Waiters,
    admission: Admission,
    readiness: Readiness,
    measured: metrics.WebMetrics,
    access: AccessControl,
    unknown: UnknownPeople,
    jobs: Jobs,
    fleet: FleetWatch,
    wake_jobs: Callable[[], None] = lambda: None,
    on_access: Callable[[AccessRecord], None] = lambda _: None,
) -> DescribedApp:
    """Make the application.

    `reply_to` names the response queue whose results resolve `waiters`. `admission` decides how many uploads may wait,
    `access` which requests are served. `measured` counts every request. `wake_jobs` is called for each new job.
    `on_access` gets each search and enrolment, for the access log.
    """
    app = _App("facerec.web", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.web.max_upload_bytes + forms.FORM_OVERHEAD_BYTES,
        MAX_FORM_MEMORY_SIZE=forms.FORM_MEMORY_BYTES,
    )
    measured.instrument(app)
    asker = Asker(
        settings=settings,
        store=store,
        queue=queue,
        reply_to=reply_to,
        waiters=waiters,
        admission=admission,
        on_end=measured.upload,
        on_access=on_access,
    )
    app.register_blueprint(uploads.blueprint(asker, settings.web.max_upload_bytes))
    services = ApiServices(
        settings=settings,
        store=store,
        asker=asker,
        people=people,
        persons=People(enrolled=people, records=records, photos=store),
        erasures=erasures,
        collections=collections,
        access=access,
        unknown=Unknown(enrolled=people, records=unknown, names=records),
        jobs=JobCalls(settings=settings, store=store, jobs=jobs, wake=wake_jobs),
        fleet=fleet,
    )
    register_apis(app, services)
    register_pages(app, services)
    app.register_blueprint(health_blueprint(readiness, open_to_all=access.open_to_all))
    app.register_blueprint(metrics.blueprint(measured))

    install_access_control(app, access, _denied)
    if proxies := settings.web.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign] # as Flask documents
    app.register_error_handler(HTTPException, lambda exc: _http_error(exc, settings))
    app.register_error_handler(Exception, _fault)
    app.after_request(_add_headers)
    return app


def _denied(denial: Denial) -> Response:
    if rekognition.is_call(request.path):
        return rekognition.denied(denial)
    if is_page():
        return sign_in.denied(denial)
    return _error(denial.status, denial.sentence, denial.code)


def _http_error(exc: HTTPException, settings: Settings) -> Response:
    match exc:
        case NotFound():
            sentence = f"there is nothing at {request.path}"
            if not is_page():
                sentence += ": pictures are uploaded with POST to /"
        case MethodNotAllowed():
            allowed = " or ".join(sorted(set(exc.valid_methods or ()) - {"HEAD", "OPTIONS"}))
            sentence = f"{request.method} is not possible here: use {allowed}"
        case RequestEntityTooLarge():
            sentence = replies.too_large(settings.web.max_upload_bytes).text
        case _:
            sentence = exc.description or "the request cannot be answered"
    response = _error(exc.code or 500, sentence)
    for name, value in exc.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _fault(exc: Exception) -> Response:
    known = {"request_id": str(g.request_id)} if "request_id" in g else {}
    log.error("request_failed", method=request.method, path=request.path, exc_info=exc, **known)
    return _error(500, "the server made a mistake that it has noted: try again later")


def _error(status: int, sentence: str, code: int = UNDEFINED) -> Response:
    """Make an error response: a page for people, JSON for the APIs, plain text elsewhere."""
    sentence = one_line(sentence)
    if rekognition.is_call(request.path):
        return rekognition.failed(status, sentence)
    if is_page():
        return layout.error_page(status, sentence)
    if request.path.startswith("/api/"):
        return results.json_error(compreface.status_of(request.path, status, code), sentence, code)
    return Response(sentence, status=status, content_type="text/plain; charset=utf-8")


def _add_headers(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", layout.POLICY)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
