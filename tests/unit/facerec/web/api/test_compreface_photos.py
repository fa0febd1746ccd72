"""CompreFace's calls with a photo, through the application on fakes; the test says what the worker answers."""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from werkzeug.test import TestResponse

from facerec.messages import (
    Enrolment,
    Face,
    Outcome,
    RecognitionRequest,
    RecognitionResult,
    Refusal,
    ResultBox,
    ResultMatch,
)
from facerec.operations import Compare, Detect, Enrol, Recognise, Verify
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from tests.fakes.drawn_faces import DrawnFace
from tests.fakes.drawn_faces import photo as drawn
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier, picture, running

ID = str(UUID(int=1))
"""The image id of the one face that is enrolled."""
RECOGNIZE, DETECT, COMPARE = "recognition/recognize", "detection/detect", "verification/verify"
VERIFY, ADD = f"recognition/faces/{ID}/verify", "recognition/faces?subject=Ada"
ONE_PHOTO = pytest.mark.parametrize("call", [RECOGNIZE, DETECT, VERIFY, ADD])


def face(side: float = 40, probability: float = 0.9, **known: Any) -> Face:
    """A square face."""
    box = ResultBox(x_min=10.4, y_min=20.6, x_max=10.4 + side, y_max=20.6 + side)
    return Face(box=box, probability=probability, landmarks=((20.4, 30.6),) * 5, **known)


def near(identity: str, similarity: float, threshold: float = 0.4) -> ResultMatch:
    """A person that is near a face."""
    return ResultMatch(identity=identity, similarity=similarity, threshold=threshold)


class Tier:
    """A running web tier, whose worker gives the fields `says` of its result."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.web = FakeWebTier(settings, self._answer)
        self.web.templates.add(make_template(1, "Ada"))
        self.says: dict[str, Any] = {"faces": (face(),)}

    def _answer(self, request: RecognitionRequest) -> RecognitionResult:
        known: dict[str, Any] = {
            "request_id": request.request_id,
            "result": "",
            "filename": request.filename,
            "outcome": Outcome.DONE,
            "threshold": 0.4,
            "model_id": "open-128-0123456789abcdef",
            "engine": "openvino",
            "precision": "bf16",
            "timings_ms": {"decode": 1.0, "detect": 2.5, "embed": 4.25, "match": 9.0},
            "completed_at": datetime.now(UTC),
        }
        return RecognitionResult(**(known | self.says))

    def post(self, call: str, *fields: str, **query: Any) -> TestResponse:
        """Send photos in a form."""
        names = fields or (("source_image", "target_image") if call == COMPARE else ("file",))
        data = {name: (BytesIO(picture()), f"{name}.jpg") for name in names}
        return self.web.app.test_client().post(f"/api/v1/{call}", data=data, query_string=query or None)

    @property
    def asked(self) -> RecognitionRequest:
        """The last request."""
        return self.web.tasks.requests[-1]


@pytest.fixture
def tier() -> Iterator[Tier]:
    """A tier whose worker finds one face, and compares with nobody."""
    tier = Tier()
    with running(tier.web):
        yield tier


def error(response: TestResponse) -> tuple[int, int]:
    """Status and code of an error, which has a sentence."""
    assert response.json
    assert response.json["message"]
    return response.status_code, response.json["code"]


def test_recognition_names_the_nearest_subject(tier: Tier) -> None:
    """One for each face, the largest face first, whatever the similarity; our threshold is CompreFace's 0.5."""
    small = face(30, nearest=(near("Jane", 0.2),))
    tier.says["faces"] = (small, face(60, 0.987654321, nearest=(near("Ada", 0.7), near("Jane", 0.1))))
    reply = tier.post(RECOGNIZE)
    assert reply.status_code == 200
    assert reply.json == {
        "result": [
            {
                "box": {"probability": 0.98765, "x_min": 10, "y_min": 21, "x_max": 70, "y_max": 81},
                "subjects": [{"subject": "Ada", "similarity": 0.75}, {"subject": "Jane", "similarity": 0.125}],
            },
            {
                "box": {"probability": 0.9, "x_min": 10, "y_min": 21, "x_max": 40, "y_max": 51},
                "subjects": [{"subject": "Jane", "similarity": 0.25}],
            },
        ]
    }
    assert tier.asked.operation == Recognise(nearest=1)
    assert tier.asked.filename == "file.jpg"


def test_recognition_asks_for_as_many_subjects_as_the_client(tier: Tier) -> None:
    """The SDK's queries begin with an ampersand."""
    tier.post(f"{RECOGNIZE}?&prediction_count=3")
    assert tier.asked.operation == Recognise(nearest=3)


def test_similarity_threshold_leaves_strangers_without_a_name(tier: Tier) -> None:
    """Ours, on request: an honest `unknown` instead of the nearest subject."""
    ada, jane = near("Ada", 0.4), near("Jane", 0.39)
    tier.says["faces"] = (face(matches=(ada,), nearest=(ada, jane)),)
    found = tier.post(RECOGNIZE, similarity_threshold="0.5", prediction_count=2).json
    assert found
    assert found["result"][0]["subjects"] == [{"subject": "Ada", "similarity": 0.5}]
    found = tier.post(RECOGNIZE, similarity_threshold="0.9").json
    assert found
    assert found["result"][0]["subjects"] == []


def test_detection_lists_boxes_alone(tier: Tier) -> None:
    """They are compared with nobody."""
    reply = tier.post(DETECT)
    assert reply.json
    assert [list(each) for each in reply.json["result"]] == [["box"]]
    assert tier.asked.operation == Detect()


def test_verification_with_an_enrolled_face(tier: Tier) -> None:
    """Each face has its similarity, on the scale of the threshold that the worker applied."""
    tier.says["faces"] = (face(30, similarity=0.2), face(60, similarity=0.7))
    reply = tier.post(VERIFY)
    assert reply.json
    assert [(each["subject"], each["similarity"]) for each in reply.json["result"]] == [("Ada", 0.75), ("Ada", 0.25)]
    assert tier.asked.operation == Verify(template_id=UUID(ID).hex)


def test_verification_of_two_photos(tier: Tier) -> None:
    """The face of the first with those of the second."""
    tier.says |= {"source_faces": (face(50),), "faces": (face(30, similarity=0.4), face(60, similarity=0.0))}
    reply = tier.post(COMPARE)
    assert reply.json
    (only,) = reply.json["result"]
    assert only["source_image_face"]["box"]["x_max"] == 60
    assert [(each["box"]["x_max"], each["similarity"]) for each in only["face_matches"]] == [(70, 0.0), (40, 0.5)]
    assert isinstance(tier.asked.operation, Compare)
    assert tier.asked.operation.target.key.endswith("/target/target_image.jpg")


def test_source_of_a_verification_has_one_face(tier: Tier) -> None:
    """Several are too many, except for those that are not probable enough."""
    tier.says |= {"source_faces": (face(50), face(40, 0.5)), "faces": (face(similarity=0.4),)}
    assert error(tier.post(COMPARE)) == (400, 31)
    assert tier.post(COMPARE, det_prob_threshold=0.6).status_code == 200
    tier.says["source_faces"] = (face(50, 0.5), face(40))
    assert error(tier.post(COMPARE, det_prob_threshold=0.6)) == (400, 31)


def test_plugins_and_status_add_what_they_name(tier: Tier) -> None:
    """Landmarks in whole pixels, times and the model; embeddings are never given, unknown plugins are ignored."""
    reply = tier.post(DETECT, face_plugins="calculator, landmarks,age", status="True")
    assert reply.json
    (found,) = reply.json["result"]
    assert found["landmarks"] == [[20, 31]] * 5
    assert found["execution_time"] == {"detector": 3.5, "calculator": 4.25}
    assert set(found) == {"box", "landmarks", "execution_time"}
    model = "open-128-0123456789abcdef (openvino, bf16)"
    assert reply.json["plugins_versions"] == {"detector": model, "calculator": model}


def test_status_of_a_verification_is_within_its_result(tier: Tier) -> None:
    """As CompreFace has it."""
    tier.says |= {"source_faces": (face(),), "faces": (face(similarity=0.4),)}
    reply = tier.post(COMPARE, status="true", face_plugins="landmarks")
    assert reply.json
    (only,) = reply.json["result"]
    assert set(only) == {"source_image_face", "face_matches", "plugins_versions"}
    assert set(only["source_image_face"]) == {"box", "landmarks", "execution_time"}


def test_limit_keeps_the_largest_faces(tier: Tier) -> None:
    """0 keeps all."""
    tier.says["faces"] = (face(20), face(60), face(40))
    for limit, sides in ((0, [60, 40, 20]), (2, [60, 40]), (9, [60, 40, 20])):
        reply = tier.post(DETECT, limit=limit)
        assert reply.json
        assert [each["box"]["x_max"] - each["box"]["x_min"] for each in reply.json["result"]] == sides


def test_improbable_faces_are_left_out(tier: Tier) -> None:
    """Without another one there is no face."""
    tier.says["faces"] = (face(20, 0.5), face(60, 0.8))
    reply = tier.post(DETECT, det_prob_threshold=0.8)
    assert reply.json
    assert len(reply.json["result"]) == 1
    assert error(tier.post(DETECT, det_prob_threshold=0.81)) == (400, 28)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "-1"},
        {"limit": "x"},
        {"prediction_count": "0"},
        {"det_prob_threshold": "1.1"},
        {"det_prob_threshold": "nan"},
        {"similarity_threshold": "-0.1"},
        {"status": "perhaps"},
    ],
)
def test_wrong_parameter_is_refused_before_the_photo_is_stored(tier: Tier, query: dict[str, str]) -> None:
    """Code 26, with the parameter's name."""
    reply = tier.post(RECOGNIZE, **query)
    assert error(reply) == (400, 26)
    assert reply.json
    assert next(iter(query)) in reply.json["message"]
    assert tier.web.tasks.requests == []


@pytest.mark.parametrize("call", [RECOGNIZE, DETECT, VERIFY, COMPARE, ADD])
def test_photo_without_a_face_is_an_error(tier: Tier, call: str) -> None:
    """Code 28, as CompreFace has it."""
    nobody = Enrolment(status="no_face", detail="no face found", identity="Ada")
    refused = {"outcome": Outcome.REFUSED, "refusal": Refusal.NOT_ENROLLED, "enrolments": (nobody,)}
    tier.says = refused if call == ADD else {"outcome": Outcome.NO_FACE, "result": "No-Face", "faces": ()}
    assert error(tier.post(call)) == (400, 28)


@ONE_PHOTO
def test_file_that_is_no_photo_has_the_code_of_its_extension(tier: Tier, call: str) -> None:
    """21, whether the web tier or the worker sees it."""
    client = tier.web.app.test_client()
    reply = client.post(f"/api/v1/{call}", data={"file": (BytesIO(b"GIF89a"), "a.jpg")})
    assert error(reply) == (400, 21)
    tier.says = {"outcome": Outcome.INVALID_IMAGE, "detail": "the picture is damaged"}
    assert error(tier.post(call)) == (400, 21)


@ONE_PHOTO
def test_photo_may_come_as_base64(tier: Tier, call: str) -> None:
    """Under the same names."""
    tier.says = {"faces": (face(similarity=0.4),)} | enrolled()
    body = {"file": base64.b64encode(picture()).decode()}
    reply = tier.web.app.test_client().post(f"/api/v1/{call}", json=body)
    assert reply.status_code in {200, 201}
    assert tier.web.store.get(tier.asked.input.bucket, tier.asked.input.key) == picture()


def test_two_photos_may_come_as_base64(tier: Tier) -> None:
    """Under the same names."""
    tier.says = {"source_faces": (face(),), "faces": (face(similarity=0.4),)}
    body = {"source_image": base64.b64encode(picture()).decode(), "target_image": base64.b64encode(picture()).decode()}
    assert tier.web.app.test_client().post(f"/api/v1/{COMPARE}", json=body).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"file": 1}', b'{"file": ""}', b'{"file": "%"}', b'{"source_image": "AA"}']
)
@pytest.mark.parametrize("call", [RECOGNIZE, COMPARE])
def test_wrong_base64_body_is_refused(tier: Tier, body: bytes, call: str) -> None:
    """With a sentence, not with a fault."""
    reply = tier.web.app.test_client().post(f"/api/v1/{call}", data=body, content_type="application/json")
    assert reply.status_code == 400
    assert reply.json
    assert reply.json["message"]


@pytest.mark.parametrize("fields", [("photo",), ("file", "other")])
def test_form_has_the_named_files_alone(tier: Tier, fields: tuple[str, ...]) -> None:
    """The sentence says which."""
    assert error(tier.post(DETECT, *fields)) == (400, 0)
    assert error(tier.post(COMPARE, "source_image")) == (400, 0)


def as_form(body: bytes) -> dict[str, Any]:
    """The arguments of a request with a file in a form."""
    return {"data": {"file": (BytesIO(body), "a.jpg")}}


def as_json(body: bytes) -> dict[str, Any]:
    """The arguments of a request with a file as base64 text."""
    return {"json": {"file": base64.b64encode(body).decode()}}


@pytest.mark.parametrize("sent", [as_form, as_json])
def test_too_large_photo_is_413(sent: Callable[[bytes], dict[str, Any]]) -> None:
    """A photo may have the limit in each form, and no more."""
    limit = 200_000
    tier = Tier(Settings(web=WebSettings(max_upload_bytes=limit)))
    with running(tier.web):
        client = tier.web.app.test_client()
        body = picture()
        whole = body + bytes(limit - len(body))
        assert client.post(f"/api/v1/{DETECT}", **sent(whole)).status_code == 200
        assert client.post(f"/api/v1/{DETECT}", **sent(whole + b"0")).status_code == 413
        assert client.post(f"/api/v1/{DETECT}", **sent(whole + bytes(limit))).status_code == 413


def enrolled(status: str = "enrolled", identity: str = "Ada") -> dict[str, Any]:
    """What a worker says of an enrolment."""
    enrolment = Enrolment(
        status=status, detail="quality 0.31 (blurred)", identity=identity, template_id=UUID(ID).hex, face=0
    )
    if status in {"enrolled", "duplicate"}:
        return {"enrolments": (enrolment,)}
    return {"enrolments": (enrolment,), "outcome": Outcome.REFUSED, "refusal": Refusal.NOT_ENROLLED}


@pytest.mark.parametrize("status", ["enrolled", "duplicate"])
def test_added_face_has_an_id(tier: Tier, status: str) -> None:
    """The same photo has the same id; the subject is spelled as the collection has it."""
    tier.says = enrolled(status, "Ada Lovelace")
    reply = tier.post("recognition/faces?subject=ada%20lovelace&det_prob_threshold=0.7")
    assert (reply.status_code, reply.json) == (201, {"image_id": ID, "subject": "Ada Lovelace"})
    assert tier.asked.operation == Enrol(identity="ada lovelace", faces="only", min_probability=0.7)


def test_face_joins_the_subject_that_was_added_without_one(tier: Tier) -> None:
    """In its spelling."""
    tier.web.records.add_name("default", "Grace Hopper")
    tier.says = enrolled()
    tier.post("recognition/faces?subject=grace%20hopper")
    assert tier.asked.operation == Enrol(identity="Grace Hopper", faces="only", min_probability=0)


@pytest.mark.parametrize(
    ("status", "code"),
    [("several_faces", 31), ("invalid_image", 21), ("poor_quality", 0), ("too_small", 0), ("other_name", 0)],
)
def test_refused_face_has_its_reason(tier: Tier, status: str, code: int) -> None:
    """Ours for what CompreFace does not check."""
    tier.says = enrolled(status)
    reply = tier.post(ADD)
    assert error(reply) == (400, code)
    if status == "poor_quality":
        assert reply.json
        assert "blurred" in reply.json["message"]
        assert "force=true" in reply.json["message"]


def test_poor_photo_can_be_forced(tier: Tier) -> None:
    """By our own parameter."""
    tier.says = enrolled()
    tier.post(f"{ADD}&force=true")
    assert isinstance(tier.asked.operation, Enrol)
    assert tier.asked.operation.force


def test_face_needs_a_subject(tier: Tier) -> None:
    """Code 33 without the parameter; the name must be one."""
    assert error(tier.post("recognition/faces")) == (400, 33)
    assert error(tier.post("recognition/faces?subject=")) == (400, 26)
    assert error(tier.post("recognition/faces?subject=No-Face")) == (400, 26)
    assert tier.web.tasks.requests == []


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal.NO_SUCH_TEMPLATE, (404, 44)),
        (Refusal.OTHER_MODEL, (404, 44)),
        (Refusal.NO_SUCH_PERSON, (404, 42)),
        (Refusal.INVALID_NAME, (400, 26)),
        (Refusal.UNSUPPORTED, (501, 0)),
    ],
)
def test_refused_operation_has_its_code(tier: Tier, refusal: Refusal, expected: tuple[int, int]) -> None:
    """Such as a face that was removed meanwhile."""
    tier.says = {"outcome": Outcome.REFUSED, "refusal": refusal, "detail": "there is no such thing"}
    assert error(tier.post(VERIFY)) == expected


def test_failed_photo_is_500(tier: Tier) -> None:
    """With the request id for a report."""
    tier.says = {"outcome": Outcome.FAILED, "detail": "the engine failed"}
    assert error(tier.post(RECOGNIZE)) == (500, 0)


@pytest.fixture
def working() -> Iterator[FakeWebTier]:
    """A web tier with the app tier's use case behind it, which reads faces that are written into photos."""
    with running(FakeWebTier(working=True)) as tier:
        yield tier


def send(tier: FakeWebTier, call: str, *photos: bytes) -> TestResponse:
    """Send these photos in a form."""
    names = ("source_image", "target_image") if len(photos) > 1 else ("file",)
    data = {name: (BytesIO(photo), f"{name}.jpg") for name, photo in zip(names, photos, strict=True)}
    return tier.app.test_client().post(f"/api/v1/{call}", data=data)


def test_added_face_is_recognised_and_verified(working: FakeWebTier) -> None:
    """By the use case of the workers; strangers are below CompreFace's 0.5."""
    added = send(working, "recognition/faces?subject=Ada", drawn("Ada")).json
    assert added
    assert send(working, "recognition/faces?subject=ada", drawn("Ada")).json == added
    found = send(working, RECOGNIZE, drawn("Ada", "Eve", take=1)).json
    assert found
    near = [(each["subject"], each["similarity"] >= 0.5) for face in found["result"] for each in face["subjects"]]
    assert near == [("Ada", True), ("Ada", False)]
    verified = send(working, f"recognition/faces/{added['image_id']}/verify", drawn("Eve", "Ada", take=1)).json
    assert verified
    assert [each["similarity"] >= 0.5 for each in verified["result"]] == [False, True]
    compared = send(working, COMPARE, drawn("Ada"), drawn("Eve", "Ada", take=1)).json
    assert compared
    assert [each["similarity"] >= 0.5 for each in compared["result"][0]["face_matches"]] == [False, True]


def test_person_has_one_face_of_a_photo_with_a_threshold(working: FakeWebTier) -> None:
    """The most similar one; without a threshold each face has its nearest subject, as in CompreFace."""
    assert send(working, ADD, drawn("Ada")).status_code == 201
    twins = drawn(DrawnFace("Ada", side=90), DrawnFace("Ada", side=100, take=1))
    for query, subjects in (
        ("", [1, 1]),
        ("?similarity_threshold=0.5", [0, 1]),
        ("?similarity_threshold=0.01", [0, 1]),
    ):
        found = send(working, f"{RECOGNIZE}{query}", twins).json
        assert found
        assert [len(each["subjects"]) for each in found["result"]] == subjects


def test_photo_of_another_person_or_of_several_is_not_added(working: FakeWebTier) -> None:
    """Each with its reason; a blurred one can be forced."""
    blurred = drawn(DrawnFace("Eve", quality=0.3))
    assert send(working, ADD, drawn("Ada")).status_code == 201
    same = send(working, "recognition/faces?subject=Eve", drawn("Ada"))
    assert error(same) == (400, 0)
    assert same.json == {"message": "this photo is already enrolled for 'Ada'", "code": 0}
    assert error(send(working, ADD, drawn("Ada", "Eve"))) == (400, 31)
    assert error(send(working, ADD, drawn())) == (400, 28)
    poor = send(working, "recognition/faces?subject=Eve", blurred)
    assert error(poor) == (400, 0)
    assert send(working, "recognition/faces?subject=Eve&force=true", blurred).status_code == 201


def test_refused_admission_is_503_with_a_time(tier: Tier) -> None:
    """As uploads are refused."""
    tier.web.admission.close()
    reply = tier.post(RECOGNIZE)
    assert error(reply) == (503, 0)
    assert int(reply.headers["Retry-After"]) > 0
