"""Both app tiers on one request queue: a worker, and both functions under AWS's emulator of the runtime."""

import base64
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from facerec.local.state import StateDirectory
from facerec.processes.addresses import poll_until
from tests.support.local_system import LocalSystem, queue_counts
from tests.support.pictures import PORTRAIT

QUEUES = ("facerec-req-queue", "facerec-faces-queue")
UPLOADS = 40


@pytest.fixture(scope="module")
def both(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One worker, both functions and one web process, with the sample people enrolled."""
    environ = {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_WORKER__CONCURRENCY": "2",
        "FACEREC_WORKER__ENGINES": "1",
    }
    with LocalSystem(tmp_path_factory.mktemp("both"), environ=environ, options=("--tier", "both")) as running:
        running.run("enrol", "--folder", "examples/gallery")
        yield running


def result(system: LocalSystem, request_id: str) -> httpx.Response:
    """A stored result."""
    return httpx.get(f"{system.url}api/v1/results/{request_id}", trust_env=False, timeout=10)


def test_worker_and_functions_share_one_queue(both: LocalSystem) -> None:
    """Every upload is answered, right, by one of the tiers, and both have answered some; the queues are empty."""

    def upload(number: int) -> httpx.Response:
        photo = {"inputFile": (f"image_{number}.jpg", PORTRAIT.read_bytes())}
        return httpx.post(both.url, files=photo, timeout=150, trust_env=False)

    with ThreadPoolExecutor(20) as clients:
        replies = list(clients.map(upload, range(UPLOADS)))
    assert [reply.text.strip() for reply in replies] == [
        f"image_{number}.jpg: face detected - Barack Obama" for number in range(UPLOADS)
    ]
    engines = {result(both, reply.headers["x-request-id"]).json()["engine"] for reply in replies}
    assert engines == {"openvino", "onnxruntime"}  # the worker's and the functions'
    assert poll_until(lambda: {queue_counts(both, queue) for queue in QUEUES} == {(0, 0)}, 10)


def test_signed_call_of_the_function_url_becomes_a_result(both: LocalSystem) -> None:
    """The photo goes through both functions; the web tier has the result. An unsigned call is refused."""
    url = StateDirectory(both.state).running().function_url
    assert url is not None
    request_id = str(uuid.uuid4())
    content = base64.b64encode(PORTRAIT.read_bytes()).decode()
    body = json.dumps({"request_id": request_id, "filename": "a.jpg", "content": content})
    request = AWSRequest("POST", url, {"Content-Type": "application/json"}, data=body.encode())
    assert httpx.post(url, content=body, trust_env=False).status_code == 403
    credentials = Credentials(both.environ["AWS_ACCESS_KEY_ID"], both.environ["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(credentials, "lambda", "us-east-1").add_auth(request)
    reply = httpx.post(url, content=body, headers=dict(request.headers.items()), trust_env=False, timeout=20)
    assert (reply.status_code, reply.json()) == (202, {"request_id": request_id, "faces": 1})
    assert poll_until(lambda: result(both, request_id).status_code == 200, 20)
    assert result(both, request_id).json()["result"] == "Barack Obama"
    assert result(both, request_id).json()["engine"] == "onnxruntime"
