"""What `/api/v1` answers is what its OpenAPI document says: to requests that the document allows, and to others.

The schemathesis of this version makes the requests: boundary values, random ones, wrong types, missing and unknown
fields, other content types, and methods that the document does not name. The web tier, its worker and the stores are
in memory.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, running

PHOTOS = [photo(*names, size=(240, 120)) for names in (("Jane",), ("Bob",), ("Jane", "Bob"), ())]
NAMES = ["Jane", "Bob", "R/D", "Zoë"]

CONFIG = """
seed = 7

[generation]
max-examples = 10
database = "none"

[phases.stateful]
enabled = false

# A photo in which no face can be enrolled is a valid request.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 422]

# The document cannot say which strings are cursors.
[[operations]]
include-name = ["GET /api/v1/people", "GET /api/v1/people/{name}/photos", "GET /api/v1/unknown"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404]

# Nor which addresses a callback may have, and which buckets a job may read.
[[operations]]
include-name = "POST /api/v1/jobs"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 403, 404, 415]
"""

# What a schema cannot say of the documented formats.
schemathesis.openapi.format("binary", st.sampled_from(PHOTOS))
schemathesis.openapi.format("byte", st.sampled_from([b64encode(body).decode() for body in PHOTOS]))
schemathesis.openapi.format("person-name", st.sampled_from(NAMES))
schemathesis.openapi.format("cursor", st.sampled_from(["Qm9i", "Wm_Dqw"]))


@pytest.fixture(scope="module")
def tier() -> Iterator[FakeWebTier]:
    """An open web tier with its worker; two people are enrolled."""
    with running(FakeWebTier(working=True)) as started:
        client = started.app.test_client()
        for name in NAMES[:2]:
            body = {"photo": b64encode(photo(name)).decode()}
            assert client.post(f"/api/v1/people/{name}/photos", json=body).status_code == 201
        yield started


def test_responses_are_as_described(tier: FakeWebTier) -> None:
    """By every check of schemathesis, for every operation of the document."""

    def served(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # A server names the client.
        return tier.app({**environ, "REMOTE_ADDR": "127.0.0.1"}, start)

    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", served, config=SchemathesisConfig.from_str(CONFIG))
    tested, failures, checked = set(), list[str](), 0
    for event in from_schema(schema).execute():
        match event:
            case ScenarioFinished(recorder=recorder):
                tested.add(recorder.label)
                checked += sum(map(len, recorder.checks.values()))
                failures += [
                    f"{recorder.label}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                    for checks in recorder.checks.values()
                    for check in checks
                    if check.failure_info is not None
                ]
            case NonFatalError(value=error, label=label):
                failures.append(f"{label}: {error}")
            case FatalError(exception=error):
                raise error
    assert not failures, "\n\n".join(failures)
    assert checked > 1000
    described = tier.app.api_doc["paths"]
    assert tested >= {f"{method.upper()} {path}" for path in described for method in described[path]}
