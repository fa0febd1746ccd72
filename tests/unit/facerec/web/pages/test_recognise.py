"""The recognise view: its fragments, the results of earlier requests, and what a key may see."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import Scope, issue
from facerec.errors import Transient
from facerec.messages import (
    Face,
    FaceQuality,
    LeftOut,
    Outcome,
    RecognitionResult,
    ResultBox,
    ResultMatch,
    UnknownSight,
)
from facerec.settings import Settings
from facerec.web.pages.shown_faces import shown_faces
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.drawn_faces import DrawnFace, photo
from tests.fakes.web_tier import FakeWebTier, picture, running

SCRIPT = {"HX-Request": "true"}
MARKUP = "<img src=x onerror=alert(1)>\"'"


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """A tier with a real use case, which knows Ada."""
    settings = Settings.model_validate({"unknown": {"collections": ["*"]}})
    with running(FakeWebTier(settings, working=True)) as tier:
        enrol(tier.app.test_client(), "Ada")
        yield tier


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """A client of the tier."""
    return tier.app.test_client()


def enrol(client: FlaskClient, name: str) -> None:
    """Enrol a person with one photo."""
    files = {"file": (BytesIO(photo(name, take=1)), "enrolled.jpg")}
    assert client.post(f"/api/v1/people/{name}/photos", data=files).status_code == 201


def send(client: FlaskClient, body: bytes, filename: str = "photo.jpg", field: str = "file") -> TestResponse:
    """Send a photo as the page's script does."""
    return client.post("/recognise", data={field: (BytesIO(body), filename)}, headers=SCRIPT)


def words(response: TestResponse) -> str:
    """What a fragment says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", response.text)).split())


def result(**changes: Any) -> RecognitionResult:
    """A result with one face that matches nobody."""
    face = Face(box=ResultBox(x_min=10, y_min=20, x_max=60, y_max=80), probability=0.99, landmarks=((20.0, 30.0),) * 5)
    fields: dict[str, Any] = {
        "request_id": uuid4(),
        "result": "Unknown",
        "filename": "photo.jpg",
        "outcome": Outcome.UNKNOWN,
        "faces": (face.model_copy(update=changes.pop("face", {})),),
        "width": 640,
        "height": 480,
        "threshold": 0.4,
        "threshold_source": "model",
        "identities": 332,
        "false_names": 0.01,
        "completed_at": datetime.now(UTC),
    }
    return RecognitionResult.model_validate(fields | changes)


def shown(**changes: Any) -> TestResponse:
    """The fragment of such a result."""
    with running(FakeWebTier(answer=lambda request: result(request_id=request.request_id, **changes))) as tier:
        response = send(tier.app.test_client(), picture())
        assert response.status_code == 200
        return response


def test_view_lets_this_page_alone_use_the_camera(client: FlaskClient) -> None:
    """Its form works without scripts, too."""
    response = client.get("/")
    assert response.headers["Permissions-Policy"].startswith("camera=(self)")
    assert client.get("/people").headers["Permissions-Policy"].startswith("camera=()")
    assert '<form class="photo-zone"' in response.text
    assert 'action="/" method="post" enctype="multipart/form-data"' in response.text
    assert 'name="inputFile"' in response.text
    assert "send one picture of at most 15 MB" in response.text
    assert "Photos are deleted after 1 day. Results are deleted after 7 days." in words(response)


def test_known_and_unknown_faces_are_drawn_and_listed(client: FlaskClient) -> None:
    """The picture's pixels are the drawing's, so that it scales."""
    response = send(client, photo("Ada", DrawnFace("somebody", quality=0.4), take=2), "two.jpg")
    assert response.status_code == 200
    assert 'viewBox="0 0 640 480"' in response.text
    assert response.text.count('class="box"') == 2
    assert response.text.count('class="landmark"') == 10
    assert '<rect class="box" x="10.0" y="10.0" width="100.0" height="100.0"' in response.text
    assert 'aria-label="Face 1: Ada"' in response.text
    assert 'aria-label="Face 2: Nobody we know"' in response.text
    assert 'data-summary="Ada and 1 more face"' in response.text
    said = words(response)
    assert "The main face: it decides the photo's line of text." in said
    assert "Similarity 0.90 , threshold 0.40" in said
    assert "for a collection of 1 person: at most 1 % of strangers get a name" in said
    assert "Quality 40 % : blurred" in said
    assert "two.jpg: face detected - Ada" in said
    assert "<style" not in response.text
    assert "style=" not in response.text


def test_unknown_person_has_an_id_and_a_link(client: FlaskClient) -> None:
    """Where unknown people are kept."""
    response = send(client, photo("a visitor"))
    assert re.search(r'<a href="/unknown/unknown-\w+">unknown-\w+</a>: an unknown person, seen', response.text)


def test_photo_without_a_face_says_what_helps(client: FlaskClient) -> None:
    """There is no list."""
    response = send(client, picture())
    assert "No face was found It helps if the face is larger" in words(response)
    assert 'data-summary="no face found"' in response.text


def test_first_face_of_an_empty_collection_says_that_nobody_is_enrolled() -> None:
    """It leads to the people."""
    response = shown(identities=0)
    assert "Nobody is enrolled in this collection yet." in words(response)
    assert '<a href="/people">Add people</a>' in response.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threshold_extrapolated": True}, "So small a share was not measured: it is an estimate."),
        ({"threshold_source": "request"}, "Threshold 0.40 , set by the request."),
        ({"threshold_source": "collection"}, "Threshold 0.40 , calibrated for the collection default."),
        ({"more_faces": 3}, "3 more faces were found, but only the largest ones are compared."),
        (
            {"face": {"left_out": (LeftOut(identity="John", similarity=0.52, reason="other_face"),)}},
            "Not John ( 0.52 ): another face of this photo is John.",
        ),
        (
            {"face": {"left_out": (LeftOut(identity="John", similarity=0.52, reason="rejected"),)}},
            "Not John ( 0.52 ): a face like this one was marked as not John.",
        ),
        (
            {"face": {"nearest": (ResultMatch(identity="John", similarity=0.31, threshold=0.4),)}},
            "Nobody reaches the threshold 0.40 Nearest below it: John 0.31",
        ),
        ({"timings_ms": {"detect": 12.3}}, "Time: detect 12.30 ms"),
    ],
)
def test_result_is_explained(changes: dict[str, Any], sentence: str) -> None:
    """In words."""
    assert sentence in words(shown(**changes))


def test_people_at_the_threshold_or_without_similarity_are_not_the_nearest_below() -> None:
    """They are a match or left out, or say nothing."""
    near = [ResultMatch(identity=name, similarity=value, threshold=0.4) for name, value in [("A", 0.4), ("B", 0.001)]]
    below = ResultMatch(identity="C", similarity=0.2, threshold=0.4)
    [face] = shown_faces(result(face={"nearest": (*near, below)}))
    assert face.below == (below,)
    assert face.measured == below


def test_markup_in_names_is_text() -> None:
    """In the names of files and people, in reasons and in ids."""
    now = datetime.now(UTC)
    match = ResultMatch(identity=MARKUP, similarity=0.8, threshold=0.4)
    response = shown(
        filename=MARKUP,
        outcome=Outcome.MATCH,
        result=MARKUP,
        model_id=MARKUP,
        face={
            "matches": (match, match),
            "nearest": (match.model_copy(update={"similarity": 0.2}),),
            "quality": FaceQuality(score=0.5, reasons=(MARKUP,)),
            "left_out": (LeftOut(identity=MARKUP, similarity=0.9, reason="rejected"),),
            "unknown": UnknownSight(unknown_id=MARKUP, first_seen=now, last_seen=now, seen_count=1),
        },
    )
    assert "<img" not in response.text
    assert response.text.count("&lt;img src=x onerror=alert(1)&gt;&#34;&#39;") >= 9


@pytest.mark.parametrize(
    ("body", "field", "status", "sentence"),
    [
        (b"", "file", 400, "the file is empty"),
        (b"no picture", "file", 415, "the file is not a picture that can be read"),
        (b"GIF89a", "file", 415, "GIF files are not supported"),
        (picture(), "photo", 400, "there is no file in the multipart form field file"),
    ],
)
def test_file_that_is_refused_gets_the_sentence_alone(
    client: FlaskClient, body: bytes, field: str, status: int, sentence: str
) -> None:
    """The script shows it on the photo's card."""
    response = send(client, body, field=field)
    assert (response.status_code, response.mimetype) == (status, "text/plain")
    assert sentence in response.text


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"outcome": Outcome.INVALID_IMAGE, "detail": "the picture is cut off", "faces": ()}, 415, "cut off"),
        ({"outcome": Outcome.FAILED, "detail": "the engine ended", "faces": ()}, 500, "could not be processed"),
    ],
)
def test_result_without_faces_of_a_bad_picture_is_its_sentence(
    changes: dict[str, Any], status: int, sentence: str
) -> None:
    """Also at its own address."""
    with running(FakeWebTier(answer=lambda request: result(request_id=request.request_id, **changes))) as tier:
        response = send(tier.app.test_client(), picture())
        assert (response.status_code, sentence in response.text) == (status, True)


def test_outage_says_when_to_try_again(tier: FakeWebTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script waits as long."""

    def unreachable(*_: object) -> None:
        raise Transient("down")

    monkeypatch.setattr(tier.store, "put", unreachable)
    response = send(tier.app.test_client(), picture())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.text.startswith("uploads cannot be taken right now")


def test_late_result_is_found_at_the_address_that_the_reply_names() -> None:
    """First it is pending, then it is there, for a script and as a page."""
    with running(FakeWebTier()) as tier:
        tier.waiters.give_up()
        client = tier.app.test_client()
        response = send(client, picture())
        assert response.status_code == 202
        place = response.headers["Location"]
        assert client.get(place, headers=SCRIPT).status_code == 202
        page = client.get(place)
        assert (page.status_code, page.headers["Refresh"]) == (202, "5")
        [request] = tier.tasks.requests
        tier.work(request, result(request_id=request.request_id))
        late = client.get(place, headers=SCRIPT)
        assert (late.status_code, "Nobody we know" in late.text) == (200, True)
        assert "<html" not in late.text
        assert "<html" in client.get(place).text


def test_result_has_its_photo_and_a_download(client: FlaskClient) -> None:
    """The download is what the API answers."""
    request_id = UUID(send(client, photo("Ada", take=2), "Ada's party.jpg").headers["X-Request-Id"])
    shown = client.get(f"/recognise/{request_id}/photo")
    assert (shown.mimetype, shown.data) == ("image/jpeg", photo("Ada", take=2))
    download = client.get(f"/recognise/{request_id}/json")
    assert download.headers["Content-Disposition"] == 'attachment; filename="Ada\'s party.json"'
    assert download.json == client.get(f"/api/v1/results/{request_id}").json


def test_unknown_request_is_not_found(tier: FakeWebTier) -> None:
    """Nor is a request that was no recognition, but for its photo."""
    client = tier.app.test_client()
    [enrolment] = tier.tasks.requests
    nowhere, enrolled = (f"/recognise/{request_id}" for request_id in (uuid4(), enrolment.request_id))
    for place in (nowhere, f"{nowhere}/json", f"{nowhere}/photo", enrolled, f"{enrolled}/json"):
        response = client.get(place, headers=SCRIPT)
        assert (response.status_code, response.mimetype) == (404, "text/plain")
        assert place.split("/")[2] in response.text
    assert client.get(f"{enrolled}/photo").status_code == 200


def test_key_sees_its_own_results_and_what_it_may_do() -> None:
    """Without scope `enrol` there is no way to change people, and no link to the unknown ones."""
    store = InMemoryApiKeys()
    keys = {}
    for name, scope in {"desk": Scope.RECOGNISE, "other": Scope.RECOGNISE, "staff": Scope.ENROL}.items():
        scopes = {Scope.RECOGNISE, scope}
        key, keys[name] = issue(name, sorted(scopes), now=datetime.now(UTC))
        store.put(key)
    settings = Settings.model_validate({"unknown": {"collections": ["*"]}})
    with running(FakeWebTier(settings, keys=store, working=True)) as tier:
        header = {"x-api-key": keys["staff"].reveal()}
        files = {"file": (BytesIO(photo("Ada", take=1)), "enrolled.jpg")}
        client = tier.app.test_client()
        assert client.post("/api/v1/people/Ada/photos", data=files, headers=header).status_code == 201
        shown = {}
        clients = {}
        for name, token in keys.items():
            clients[name] = tier.app.test_client()
            token_header = tier.sign_in(clients[name], token)
            probe = {"file": (BytesIO(photo("Ada", "a visitor", take=2)), "photo.jpg")}
            shown[name] = clients[name].post("/recognise", data=probe, headers=SCRIPT | token_header)
            assert shown[name].status_code == 200
        place = f"/recognise/{shown['desk'].headers['X-Request-Id']}"
        answers = {
            name: [clients[name].get(place + end).status_code for end in ("", "/json", "/photo")] for name in keys
        }
    assert "This is not Ada" in shown["staff"].text
    assert 'href="/unknown/unknown-' in shown["staff"].text
    assert "This is not Ada" not in shown["desk"].text
    assert "/unknown" not in shown["desk"].text
    assert "unknown-" in shown["desk"].text
    assert answers == {"desk": [200] * 3, "other": [404] * 3, "staff": [404] * 3}
