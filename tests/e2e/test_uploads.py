"""Uploads to the real web tier, with real queues, a real worker and the real model."""

import csv
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from tests.support.load import Upload, upload_all
from tests.support.local_system import LocalSystem
from tests.support.pictures import BAD, GOOD, PORTRAIT, encoded, portrait

EXAMPLES = Path(__file__).parents[2] / "examples"
OBAMA = "face detected - Barack Obama"


def post(system: LocalSystem, filename: str, body: bytes) -> httpx.Response:
    """Upload one photo."""
    return httpx.post(system.url, files={"inputFile": (filename, body)}, timeout=60, trust_env=False)


def test_samples_get_the_answers_of_the_readme(system: LocalSystem) -> None:
    """Each sample gets the line that `expected.csv` names."""
    sentences = {"match": "face detected - {}", "unknown": "face not recognized", "no_face": "no face detected"}
    with (EXAMPLES / "expected.csv").open() as rows:
        for row in csv.DictReader(rows):
            reply = post(system, row["file"], (EXAMPLES / "probes" / row["file"]).read_bytes())
            assert reply.status_code == 200
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"
            assert reply.text.strip() == f"{row['file']}: {sentences[row['outcome']].format(row['name'])}"


def test_recognise_command_gives_the_answers_of_the_readme(system: LocalSystem) -> None:
    """It finds the server by what `facerec local env` sets."""
    printed = system.run("recognise", "--folder", "examples/probes", "--csv")
    found = {Path(row["file"]).name: row["outcome"] for row in csv.DictReader(printed.stdout.splitlines())}
    with (EXAMPLES / "expected.csv").open() as rows:
        assert found == {row["file"]: row["outcome"] for row in csv.DictReader(rows)}


@pytest.mark.parametrize("filename", GOOD)
def test_face_is_recognised_in_every_kind_of_picture(system: LocalSystem, filename: str) -> None:
    """Grey, palette, CMYK, 16-bit and EXIF-rotated pictures are read."""
    assert post(system, filename, GOOD[filename]()).text.strip() == f"{filename}: {OBAMA}"


def test_tiny_picture_has_no_face(system: LocalSystem) -> None:
    """Ten by ten pixels are still a picture."""
    assert post(system, "dot.png", encoded(Image.new("RGB", (10, 10), "red"))).text.strip() == (
        "dot.png: no face detected"
    )


@pytest.mark.parametrize("filename", BAD)
def test_bad_upload_gets_one_helpful_sentence(system: LocalSystem, filename: str) -> None:
    """The reply has the contract's status and no stack trace, and the next client is served."""
    make, status = BAD[filename]
    reply = post(system, filename, make())
    assert reply.status_code == status
    assert reply.headers["content-type"].startswith("text/plain")
    assert len(reply.text.strip().splitlines()) == 1
    assert "Traceback" not in reply.text
    assert post(system, "next.jpg", PORTRAIT.read_bytes()).text.strip() == f"next.jpg: {OBAMA}"


def test_missing_field_is_named(system: LocalSystem) -> None:
    """The reply is 400 and says which field to send."""
    reply = httpx.post(system.url, files={"photo": ("a.jpg", PORTRAIT.read_bytes())}, trust_env=False)
    assert reply.status_code == 400
    assert "inputFile" in reply.text


def test_two_files_in_one_request_are_refused(system: LocalSystem) -> None:
    """One request has one answer."""
    files = [("inputFile", (name, PORTRAIT.read_bytes())) for name in ("a.jpg", "b.jpg")]
    assert httpx.post(system.url, files=files, trust_env=False).status_code == 400


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("..\\windows\\me.jpg", "me.jpg"),
        ("two\nlines\r\nX-Evil: 1.jpg", "twolinesX-Evil: 1.jpg"),
        ("smile 😀.jpg", "smile 😀.jpg"),
        ("n" * 296 + ".jpg", "n" * 251 + ".jpg"),
    ],
)
def test_file_name_is_echoed_safely(system: LocalSystem, sent: str, echoed: str) -> None:
    """The reply has the last path part without control characters, in 255 characters. It stays one line."""
    # Written by hand: RFC 5987's form carries every character, which a client library would quote away.
    boundary = uuid.uuid4().hex
    name = f"name=\"inputFile\"; filename*=UTF-8''{quote(sent, safe='')}"
    head = f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\n\r\n"
    reply = httpx.post(
        system.url,
        content=head.encode() + PORTRAIT.read_bytes() + f"\r\n--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
        timeout=60,
        trust_env=False,
    )
    assert reply.status_code == 200
    assert "x-evil" not in reply.headers
    assert reply.text == f"{echoed}: {OBAMA}"


def test_hundred_clients_at_once_get_their_own_answers(system: LocalSystem) -> None:
    """Each gets the result of its own photo, although all send the same file name."""
    known = encoded(portrait().resize((240, 300)), "JPEG", quality=90)
    nobody = encoded(Image.new("RGB", (64, 64), "grey"), "JPEG")
    bodies = [known if i % 2 else nobody for i in range(100)]
    replies = upload_all(system.url, [Upload("same.jpg", body) for body in bodies], concurrency=100)
    assert [reply.status for reply in replies] == [200] * 100
    expected = [f"same.jpg: {OBAMA}" if body is known else "same.jpg: no face detected" for body in bodies]
    assert [reply.text.strip() for reply in replies] == expected


def test_uploads_of_one_name_never_mix(system: LocalSystem) -> None:
    """Each client gets the result of its own photo."""
    files = ["image_01.jpg", "image_04.jpg"]
    with ThreadPoolExecutor(2) as pool:
        bodies = [(EXAMPLES / "probes" / name).read_bytes() for name in files]
        replies = list(pool.map(lambda body: post(system, "me.jpg", body).text.strip(), bodies))
    assert replies == [f"me.jpg: {OBAMA}", "me.jpg: no face detected"]


def test_full_result_is_fetched_by_its_request_id(system: LocalSystem) -> None:
    """It lists all faces of a group, the primary face first."""
    upload = post(system, "group.jpg", (EXAMPLES / "probes/image_05.jpg").read_bytes())
    request_id = upload.headers["x-request-id"]
    reply = httpx.get(f"{system.url}api/v1/results/{request_id}", trust_env=False)
    assert reply.status_code == 200
    result = reply.json()
    assert (result["request_id"], result["result"], result["outcome"]) == (request_id, "Barack Obama", "match")
    assert len(result["faces"]) == 3
    match = result["faces"][0]["matches"][0]
    assert match["similarity"] > match["threshold"] == result["threshold"]
    assert (result["threshold_source"], result["identities"], result["false_names"]) == ("model", 2, 0.01)
    assert result["model_id"].startswith("open-128-")
    assert result["engine"] in {"openvino", "onnxruntime"}


def test_unknown_request_id_is_404_as_json(system: LocalSystem) -> None:
    """No upload had this id."""
    reply = httpx.get(f"{system.url}api/v1/results/{uuid.uuid4()}", trust_env=False)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/json"


def test_health_and_readiness(system: LocalSystem) -> None:
    """Store, queue and inbox work, so the web tier is ready."""
    assert httpx.get(f"{system.url}healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{system.url}readyz", trust_env=False).status_code == 200


def test_enrolment_reaches_running_workers_within_5_s(system: LocalSystem, tmp_path: Path) -> None:
    """So does a removal. Neither needs a restart."""
    with Image.open(EXAMPLES / "probes/image_02.jpg") as picture:
        # Another crop than the probe, so that the probe is no copy of the enrolled photo.
        width, height = picture.size
        picture.crop((width // 20, height // 20, width, height)).save(tmp_path / "collins.jpg", quality=90)
    probe = (EXAMPLES / "probes/image_02.jpg").read_bytes()
    try:
        system.run("enrol", "Eileen Collins", str(tmp_path / "collins.jpg"))
        assert _answers_within(system, probe, "face detected - Eileen Collins", 5)
    finally:
        system.run("gallery", "remove", "Eileen Collins", "--yes")
    assert _answers_within(system, probe, "face not recognized", 5)


def _answers_within(system: LocalSystem, probe: bytes, answer: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if post(system, "probe.jpg", probe).text.strip() == f"probe.jpg: {answer}":
            return True
        if asked > deadline:
            return False
