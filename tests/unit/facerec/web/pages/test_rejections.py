"""The page remembers that a face is not a person's, and forgets it."""

import re
from collections.abc import Iterator
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, running

ADA = "Ada Lovelace"


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    """A client of a site where Ada is enrolled."""
    with running(FakeWebTier(working=True)) as tier:
        client = tier.app.test_client()
        enrolled = client.post(f"/api/v1/people/{ADA}/photos", data={"file": (BytesIO(photo(ADA)), "ada.jpg")})
        assert enrolled.status_code == 201
        yield client


def recognised(client: FlaskClient, picture: bytes) -> TestResponse:
    """Upload a photo."""
    return client.post("/", data={"inputFile": (BytesIO(picture), "b.jpg")})


def reject(client: FlaskClient, earlier: str, **fields: str) -> TestResponse:
    """Say that the face of an earlier photo is not Ada."""
    data = {"request_id": earlier, "face": "0", "name": ADA} | fields
    return client.post("/rejections", data=data, headers={"HX-Request": "true"})


def test_rejection_is_remembered_listed_and_forgotten(client: FlaskClient) -> None:
    """The next recognition follows it, until it is forgotten."""
    first = recognised(client, photo(ADA, take=1))
    assert first.text.endswith(ADA)
    answer = reject(client, first.headers["X-Request-Id"])
    assert answer.status_code == 200
    assert f"this is not {ADA}" in answer.text
    assert recognised(client, photo(ADA, take=1)).text.endswith("face not recognized")
    listed = client.get("/rejections?name=ada lovelace")
    assert "b.jpg" in listed.text
    (rejection_id,) = re.findall(r'name="rejection_id" value="(\w+)"', listed.text)
    left = client.post("/rejections/forget", data={"name": ADA, "rejection_id": rejection_id})
    assert (left.status_code, left.text.strip()) == (200, "")
    assert recognised(client, photo(ADA, take=1)).text.endswith(ADA)


def test_rejections_of_others_are_not_listed(client: FlaskClient) -> None:
    """Without any the person's page shows nothing."""
    reject(client, recognised(client, photo(ADA, take=1)).headers["X-Request-Id"])
    assert client.get("/rejections?name=Grace").text.strip() == ""


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"request_id": "no id"}, 404),
        ({"face": "1"}, 422),
        ({"face": "-1"}, 400),
        ({"name": "Grace"}, 404),
        ({"name": " "}, 400),
    ],
)
def test_rejection_that_cannot_be_is_refused_with_a_sentence(
    client: FlaskClient, fields: dict[str, str], status: int
) -> None:
    """No such request, face or person."""
    answer = reject(client, recognised(client, photo(ADA, take=1)).headers["X-Request-Id"], **fields)
    assert (answer.status_code, answer.mimetype) == (status, "text/plain")
