"""A job on the real system, whose web process and worker are killed in the middle: nothing is lost."""

import io
import json
import os
import signal
import sys
import time
import zipfile

import httpx
import pytest
from PIL import Image

from facerec.callbacks import SIGNATURE_HEADER, TIMESTAMP_HEADER, owner_secret, signature
from facerec.job_records import OPEN_OWNER
from facerec.processes.addresses import poll_until
from tests.support.callback_receiver import CallbackReceiver
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.pictures import encoded, portrait
from tests.support.processes import CHECKOUT, Command

SECRET = "a secret of sixteen or more"
FILES = 60


@pytest.fixture
def environ(emulator: EmulatedAws, artefact_dir: object) -> dict[str, str]:
    """The environment of a fresh set of resources, with the real model; callbacks may go to this machine."""
    return environ_of(emulator.fresh(), emulator.environ) | {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_WEB__PORT": "0",
        "FACEREC_WEB__AUTH": "open",
        "FACEREC_WORKER__ENGINES": "1",
        "FACEREC_LOG__FORMAT": "json",
        "FACEREC_JOBS__WINDOW": "10",
        "FACEREC_CALLBACKS__SECRET": SECRET,
        "FACEREC_CALLBACKS__PRIVATE_NETWORKS": '["127.0.0.0/8"]',
    }


def started(environ: dict[str, str], *module: str) -> Command:
    """One of our modules as a command."""
    return Command([sys.executable, "-m", *module], environ, cwd=CHECKOUT, merged=True)


def web(environ: dict[str, str]) -> tuple[Command, httpx.Client]:
    """A web process and a client of it."""
    process = started(environ, "facerec.cli", "web")
    url = process.wait_for("listens on http").split()[-1]
    return process, httpx.Client(base_url=url, trust_env=False, timeout=60)


def photos() -> bytes:
    """A zip of small portraits, and one file that is none."""
    file = io.BytesIO()
    face = encoded(portrait().resize((240, 300)), "JPEG", quality=90)
    nobody = encoded(Image.new("RGB", (64, 64), "grey"), "JPEG")
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(FILES):
            archive.writestr(f"holiday/{number:02d}.jpg", face if number % 2 else nobody)
        archive.writestr("notes.txt", "no picture")
    return file.getvalue()


def done_of(client: httpx.Client, path: str) -> int:
    """How many files of a job have ended."""
    return int(client.get(path).json()["done"])


def test_job_loses_nothing_when_web_process_and_worker_are_killed(environ: dict[str, str]) -> None:
    """Each file has one row with the right result, and the client gets one signed message at the end."""
    worker = ("celery", "-A", "facerec", "worker", "-n")
    with CallbackReceiver().running() as receiver:
        first, client = web(environ)
        with first, started(environ, *worker, "w1@%h") as taker:
            taker.wait_for("ready.")
            query = {"callback_url": f"http://127.0.0.1:{receiver.port}/ended"}
            headers = {"content-type": "application/zip", "idempotency-key": "holiday"}
            created = client.post("/api/v1/jobs", params=query, content=photos(), headers=headers)
            assert created.status_code == 202
            path = created.headers["location"]
            assert poll_until(lambda: done_of(client, path) >= 5, 60)
            taker.send(signal.SIGKILL)
            first.send(signal.SIGKILL)
            first.wait()
            taker.wait()
        second, client = web(environ)
        with second, started(environ, *worker, "w2@%h"):
            done = done_of(client, path)
            assert done < FILES, "it was to be killed in the middle"
            again = client.post("/api/v1/jobs", content=photos(), headers=headers)
            assert again.json()["job_id"] == created.json()["job_id"]
            assert poll_until(lambda: client.get(path).json()["status"] == "done", 120), client.get(path).text
            assert poll_until(lambda: len(receiver.requests) > 0, 30)
            rows = [json.loads(line) for line in client.get(f"{path}/results").text.splitlines()]
            full = client.get(f"/api/v1/results/{rows[1]['request_id']}")
            assert second.stop() == 0
    assert "job_taken_over_from" in second.output
    assert [(row["file"], row["status"], row.get("outcome")) for row in rows] == [
        *((f"holiday/{number:02d}.jpg", "done", "unknown" if number % 2 else "no_face") for number in range(FILES)),
        ("notes.txt", "skipped", None),
    ]
    assert full.json()["filename"] == "01.jpg"
    [(called, sent, body)] = receiver.requests
    timestamp = sent[TIMESTAMP_HEADER]
    assert called == "/ended"
    assert sent[SIGNATURE_HEADER] == signature(owner_secret(SECRET, OPEN_OWNER), timestamp, body)
    assert abs(time.time() - int(timestamp)) < 120
    told = json.loads(body)
    assert (told["job_id"], told["status"], told["counts"]) == (
        created.json()["job_id"],
        "done",
        {"done": FILES, "skipped": 1},
    )
