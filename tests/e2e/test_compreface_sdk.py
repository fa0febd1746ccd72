"""CompreFace's official SDK against the real web tier, queues, worker and model, with API keys."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from facerec.processes.addresses import poll_until
from tests.support.compreface_sdk import INSTALLED, CompreFaceSdk
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT

pytestmark = pytest.mark.skipif(not INSTALLED, reason="CompreFace's SDK is not installed: `make test-sdks` does it")

OBAMA, OBAMA_2, BIDEN, BIDEN_2, STRANGER, NOBODY = (
    str(CHECKOUT / "examples" / name)
    for name in (
        "gallery/Barack Obama/official_portrait_2012.jpg",
        "probes/image_01.jpg",
        "gallery/Joe Biden/blue_room_2010.jpg",
        "probes/image_03.jpg",
        "probes/image_02.jpg",
        "probes/image_04.jpg",
    )
)
SAME = 0.5
"""From where on CompreFace's users take two faces for one person."""
BOTH = ("recognise", "enrol")
_VISIBLE_SECONDS = 15.0


@pytest.fixture(scope="module")
def system(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One worker and one web process that asks for keys."""
    environ = {"FACEREC_MODEL__DIR": str(artefact_dir), "FACEREC_WEB__AUTH": "keys"}
    with LocalSystem(tmp_path_factory.mktemp("system"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def two_faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A photo of Obama, and of Biden in half his size."""
    obama, biden = Image.open(OBAMA).convert("RGB"), Image.open(BIDEN).convert("RGB")
    obama.thumbnail((600, 600))
    biden.thumbnail((300, 300))
    together = Image.new("RGB", (obama.width + biden.width, obama.height), "white")
    together.paste(obama, (0, 0))
    together.paste(biden, (obama.width, 0))
    path = tmp_path_factory.mktemp("photos") / "two.jpg"
    together.save(path, quality=92)
    return str(path)


def make_key(system: LocalSystem, collection: str, *scopes: str) -> str:
    """A key for the collection."""
    options = [word for scope in scopes or BOTH for word in ("--scope", scope)]
    made = system.run("keys", "create", "sdk", "--collection", collection, "--json", *options)
    key: str = json.loads(made.stdout)["key"]
    return key


@contextmanager
def client(system: LocalSystem, collection: str, *scopes: str) -> Iterator[CompreFaceSdk]:
    """The SDK with a key for the collection."""
    with CompreFaceSdk(system.url, make_key(system, collection, *scopes)) as sdk:
        yield sdk


def raw(system: LocalSystem, key: str | None, method: str, path: str, **content: Any) -> httpx.Response:
    """A request that the SDK has no call for."""
    headers = {} if key is None else {"x-api-key": key}
    url = f"{system.url}api/v1/{path}"
    return httpx.request(method, url, headers=headers, timeout=60, trust_env=False, **content)


def best(body: Any) -> list[tuple[str, float]]:
    """The first subject of each face."""
    return [(face["subjects"][0]["subject"], face["subjects"][0]["similarity"]) for face in body["result"]]


def test_sdk_keeps_subjects(system: LocalSystem) -> None:
    """Add, list, rename, merge and remove; also a name with a slash, which the SDK does not escape."""
    with client(system, "subjects") as sdk:
        assert sdk("subjects.list") == (200, {"subjects": []})
        assert sdk("subjects.add", "Ada") == (201, {"subject": "Ada"})
        assert sdk("subjects.add", "ada") == (400, {"message": "Subject Ada already exists", "code": 43})
        assert sdk("subjects.add", "R&D/Zoë K.") == (201, {"subject": "R&D/Zoë K."})
        assert sdk("subjects.list") == (200, {"subjects": ["Ada", "R&D/Zoë K."]})
        assert sdk("subjects.update", "R&D/Zoë K.", "Zoë") == (200, {"updated": True})
        assert sdk("subjects.update", "Zoë", "Zoë") == (200, {"updated": False})
        status, body = sdk("subjects.update", "Nobody", "Somebody")
        assert (status, body["code"]) == (404, 42)
        status, body = sdk("faces.add", OBAMA, "Barack")
        assert (status, body["subject"]) == (201, "Barack")
        assert sdk("subjects.update", "Barack", "ada") == (200, {"updated": True})
        assert sdk("subjects.list") == (200, {"subjects": ["Ada", "Zoë"]})
        assert sdk("subjects.delete", "Zoë") == (200, {"subject": "Zoë"})
        status, body = sdk("subjects.delete", "Zoë")
        assert (status, body["code"]) == (404, 42)
        assert sdk("subjects.delete_all") == (200, {"deleted": 1})
        assert sdk("subjects.list") == (200, {"subjects": []})
        assert sdk("faces.list")[1]["total_elements"] == 0


def test_sdk_recognises_what_it_has_added(system: LocalSystem, two_faces: str) -> None:
    """At once; a removed face is forgotten within seconds."""
    with client(system, "faces") as sdk:
        assert sdk("subjects.add", "Barack Obama")[0] == 201
        status, obama = sdk("faces.add", OBAMA, "barack obama", det_prob_threshold=0.5)
        assert (status, obama["subject"]) == (201, "Barack Obama")
        assert sdk("faces.add", OBAMA, "Barack Obama") == (201, obama)
        status, biden = sdk("faces.add", BIDEN, "Joe Biden")
        assert status == 201
        status, listed = sdk("faces.list")
        assert status == 200
        assert sorted(map(str, listed.pop("faces"))) == sorted(map(str, [obama, biden]))
        assert listed == {"page_number": 0, "page_size": 20, "total_pages": 1, "total_elements": 2}

        status, found = sdk("recognition.recognize", OBAMA_2)
        assert status == 200
        assert [name for name, similarity in best(found) if similarity >= SAME] == ["Barack Obama"]
        status, found = sdk("recognition.recognize", STRANGER, prediction_count=5)
        subjects = found["result"][0]["subjects"]
        assert {each["subject"] for each in subjects} == {"Barack Obama", "Joe Biden"}
        assert all(each["similarity"] < SAME for each in subjects)
        status, found = sdk("recognition.recognize", two_faces)
        assert [name for name, _ in best(found)] == ["Barack Obama", "Joe Biden"]

        status, verified = sdk("faces.verify", BIDEN_2, biden["image_id"])
        assert status == 200
        assert verified["result"][0]["similarity"] >= SAME
        status, verified = sdk("faces.verify", BIDEN_2, obama["image_id"])
        assert verified["result"][0]["similarity"] < SAME

        assert sdk("faces.delete", biden["image_id"]) == (200, biden)
        for call in (("faces.delete", biden["image_id"]), ("faces.verify", BIDEN_2, biden["image_id"])):
            status, body = sdk(*call)
            assert (status, body["code"]) == (404, 44)
        assert poll_until(lambda: best(sdk("recognition.recognize", BIDEN_2)[1])[0][1] < SAME, _VISIBLE_SECONDS)
        assert sdk("faces.delete_all", "Barack Obama") == (200, {"deleted": 1})
        assert sdk("faces.delete_all", "Barack Obama") == (200, {"deleted": 0})


def test_sdk_detects_and_verifies(system: LocalSystem, two_faces: str) -> None:
    """With every option that it has."""
    options = {"limit": 1, "det_prob_threshold": 0.6, "face_plugins": "landmarks,calculator,age", "status": True}
    with client(system, "unused", "recognise") as sdk:
        status, found = sdk("detection.detect", two_faces)
        assert status == 200
        assert [list(face) for face in found["result"]] == [["box"], ["box"]]
        first, second = (face["box"] for face in found["result"])
        assert {name: type(value) for name, value in first.items()} == {
            "probability": float,
            "x_min": int,
            "y_min": int,
            "x_max": int,
            "y_max": int,
        }
        assert first["x_max"] - first["x_min"] > second["x_max"] - second["x_min"]
        status, found = sdk("detection.detect", two_faces, **options)
        (face,) = found["result"]
        assert face["box"] == first
        assert all(
            first["x_min"] < x < first["x_max"] and first["y_min"] < y < first["y_max"] for x, y in face["landmarks"]
        )
        assert face["execution_time"]["detector"] > 0
        assert set(found["plugins_versions"]) == {"detector", "calculator"}
        assert "embedding" not in face

        status, found = sdk("verification.verify", OBAMA_2, two_faces, status=True)
        assert status == 200
        (compared,) = found["result"]
        same, other = compared["face_matches"]
        assert same["box"] == first
        assert same["similarity"] >= SAME > other["similarity"]
        assert set(compared) == {"source_image_face", "face_matches", "plugins_versions"}


def test_sdk_gets_the_codes_of_compreface(system: LocalSystem, two_faces: str, tmp_path: Path) -> None:
    """For photos that cannot be used, keys and scopes."""
    text = tmp_path / "photo.jpg"
    text.write_text("no picture")
    with client(system, "errors") as sdk:
        for call in ("recognition.recognize", "detection.detect"):
            assert sdk(call, NOBODY) == (400, {"message": "No face is found in the given image", "code": 28})
            status, body = sdk(call, str(text))
            assert (status, body["code"]) == (400, 21)
        for photo, code in ((NOBODY, 28), (two_faces, 31), (str(text), 21)):
            status, body = sdk("faces.add", photo, "Ada")
            assert (status, body["code"]) == (400, code)
        for photos, code in (((two_faces, OBAMA), 31), ((NOBODY, OBAMA), 28), ((OBAMA, NOBODY), 28)):
            status, body = sdk("verification.verify", *photos)
            assert (status, body["code"]) == (400, code)
        assert sdk("subjects.list") == (200, {"subjects": []})
    with client(system, "errors", "recognise") as sdk:
        assert sdk("faces.add", OBAMA, "Ada")[0] == 403
        assert sdk("subjects.delete_all")[0] == 403
    with CompreFaceSdk(system.url, "no-key-of-ours") as sdk:
        status, body = sdk("recognition.recognize", OBAMA)
        assert (status, body["code"]) == (401, 10)


def test_calls_beside_the_sdk(system: LocalSystem) -> None:
    """The photo of a face, base64 bodies, removal of a list, pages, and another key's faces."""
    key, other = make_key(system, "beside"), make_key(system, "elsewhere")
    photo = Path(OBAMA).read_bytes()
    with CompreFaceSdk(system.url, key) as sdk:
        _, obama = sdk("faces.add", OBAMA, "Barack Obama")
        _, biden = sdk("faces.add", BIDEN, "Joe Biden")
    shown = raw(system, key, "GET", f"recognition/faces/{obama['image_id']}/img")
    assert (shown.status_code, shown.headers["content-type"], shown.content) == (200, "image/jpeg", photo)
    for method, path in (
        ("GET", f"recognition/faces/{obama['image_id']}/img"),
        ("DELETE", f"recognition/faces/{obama['image_id']}"),
    ):
        hidden = raw(system, other, method, path)
        assert (hidden.status_code, hidden.json()["code"]) == (404, 44)
    page = raw(system, key, "GET", "recognition/faces?page=99999999999999999999&size=1").json()
    assert (page["faces"], page["total_elements"], page["total_pages"]) == ([], 2, 2)
    missing = raw(system, None, "GET", "recognition/subjects")
    assert (missing.status_code, missing.json()["code"]) == (400, 20)
    stranger = raw(
        system,
        key,
        "POST",
        "recognition/recognize?similarity_threshold=0.5",
        files={"file": Path(STRANGER).read_bytes()},
    )
    assert [face["subjects"] for face in stranger.json()["result"]] == [[]]
    removed = raw(system, key, "POST", "recognition/faces/delete", json=[biden["image_id"], obama["image_id"], "none"])
    assert removed.status_code == 200
    assert sorted(map(str, removed.json())) == sorted(map(str, [obama, biden]))
