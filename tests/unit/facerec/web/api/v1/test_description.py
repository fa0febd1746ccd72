"""The OpenAPI document and the page that shows it."""

import json
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import FakeWebTier

COMMITTED = Path(__file__).parents[6] / "docs" / "openapi.json"


@pytest.fixture
def client() -> FlaskClient:
    """A client of a tier that asks for keys."""
    return FakeWebTier(keys=InMemoryApiKeys()).app.test_client()


def test_committed_document_is_the_one_that_is_served(client: FlaskClient) -> None:
    """`make docs` writes it; the document needs no key."""
    response = client.get("/api/v1/openapi.json")
    assert response.status_code == 200
    assert response.json == json.loads(COMMITTED.read_text()), "run `make docs`"


def test_document_names_the_scope_of_every_route() -> None:
    """And has a summary, and a response, for each."""
    app = FakeWebTier().app
    operations = [each for path in app.api_doc["paths"].values() for each in path.values()]
    assert operations
    for operation in operations:
        assert re.search(r"scope `\w+`|needs no key", operation["description"]), operation["operationId"]
        assert operation["summary"].endswith("."), operation["operationId"]
        undescribed = [each["name"] for each in operation.get("parameters", []) if "description" not in each]
        assert not set(undescribed) - {"limit", "format", "job_id", "erasure_id"}, operation["operationId"]
        assert any(status.startswith("2") for status in operation["responses"])


def test_page_loads_nothing_from_elsewhere(client: FlaskClient) -> None:
    """All that it names is served here, without a key, and its policy allows no other source."""
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 3
    for name in named:
        assert client.get(f"/api/v1/{name}").status_code == 200, name
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "script-src 'self';" in policy
