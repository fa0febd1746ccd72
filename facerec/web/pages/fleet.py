"""Queue, instances and decisions of the autoscaler, and the uploads of this web instance, as moving charts."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request

from facerec.api_keys import Scope
from facerec.errors import FacerecError
from facerec.fleet_records import RoundRecord
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import needs
from facerec.web.fleet.series import BUCKETS
from facerec.web.fleet.watch import RANGES
from facerec.web.pages.layout import error_page, render, view_blueprint

_DEFAULT_RANGE = "1h"


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("fleet", __name__, "/fleet")
    fleet = services.fleet

    @web.get("")
    @needs(Scope.ADMIN, page=True)
    def index() -> Response:
        return render("fleet.html", **_present(), ranges=list(RANGES), flower=services.settings.web.flower_url)

    @web.get("/now")
    @needs(Scope.ADMIN, page=True)
    def now() -> Response:
        return render("fleet_parts.html", **_present())

    @web.get("/series")
    @needs(Scope.ADMIN, page=True)
    def series() -> Response:
        seconds = RANGES[_range()]
        # A chart of a week gets a new point every 50 minutes.
        return jsonify(every_seconds=seconds / BUCKETS, **asdict(fleet.series(seconds)))

    def _present() -> dict[str, Any]:
        chosen = _range()
        decisions: list[RoundRecord] = []
        problem = None
        try:
            decisions += fleet.decisions(RANGES[chosen])
        except FacerecError as exc:
            problem = str(exc)
        return {"now": fleet.now(), "chosen": chosen, "decisions": decisions, "problem": problem, "at": _moment}

    return web


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _range() -> str:
    chosen = request.args.get("range", _DEFAULT_RANGE)
    if chosen not in RANGES:
        abort(error_page(400, f"the range is one of {', '.join(RANGES)}"))
    return chosen
