"""Erasure of a person from a running system: every store, every worker's disk, and every file that one has open."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import pytest

from facerec import bootstrap
from facerec.aws.dynamodb.template_items import template_fields
from facerec.gallery.receipt_signing import SigningKey, verified
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from model.index.vectors import quantise
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, facerec

pytestmark = pytest.mark.timeout(480)
"""It reads every store twice, and starts a system of its own."""

PROBES = Path(__file__).parents[2] / "examples" / "probes"
OBAMA, BIDEN = "Barack Obama", "Joe Biden"
OPEN_FILES = ("fd", "map_files") if os.geteuid() == 0 else ("fd",)
"""Only root may read a file that is mapped and neither open nor in a folder any more."""
FILLERS = 1000
"""So many templates make a worker keep a snapshot on its disk."""


@pytest.fixture(scope="module")
def erasing(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """Two workers and a web process, with a gallery that is large enough for snapshots."""
    state = tmp_path_factory.mktemp("erasing")
    key = state / "receipts.pem"
    environ = {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_MODEL__CACHE_DIR": str(state / "cache"),
        "FACEREC_ERASURE__SIGNING_KEY": str(key),
        "FACEREC_KEY_STYLE": "filename",
        "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "5",
        "FACEREC_GALLERY__REFRESH_SECONDS": "1",
    }
    with LocalSystem(state, workers=2, environ=environ) as running, pytest.MonkeyPatch.context() as patch:
        running.environ |= environ
        for name, value in running.environ.items():
            patch.setenv(name, value)  # for this process, which reads the stores itself
        SigningKey.create(key)
        running.run("enrol", "--folder", "examples/gallery")
        _fill(running)
        yield running


def _fill(system: LocalSystem) -> None:
    """Enrol as many strangers as a snapshot needs, and let each worker load the collection."""
    settings = Settings.load()
    known = next(iter(bootstrap.template_store(settings).templates("default")))
    drawn = np.random.default_rng(7).standard_normal((FILLERS, len(known.embedding))).astype(np.float32)
    puts: list[Any] = []
    for number, row in enumerate(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)):
        stranger = replace(
            known, template_id=f"{number:032x}", identity=f"Stranger {number}", embedding=row, photo=None, source=""
        )
        key = {"collection": {"S": "default"}, "item": {"S": f"template#{stranger.template_id}"}}
        puts.append({"PutRequest": {"Item": key | template_fields(stranger)}})
    # Not as enrolments, which take a transaction each: no worker has loaded the collection yet.
    dynamodb = bootstrap.clients(settings).dynamodb
    for start in range(0, len(puts), 25):
        dynamodb.batch_write_item(RequestItems={settings.templates_table: puts[start : start + 25]})
    readers = bootstrap.gallery_readers(settings)

    def loaded() -> bool:
        _recognise(system, "image_02.jpg")
        held = [each for each in readers.reports() if each.collections.get("default", 0)]
        return len(held) == 3  # two processes, and their disk

    assert poll_until(loaded, 60)
    system.run("gallery", "snapshot")


def _recognise(system: LocalSystem, filename: str) -> str:
    files = {"inputFile": (filename, (PROBES / filename).read_bytes())}
    return httpx.post(system.url, files=files, timeout=60, trust_env=False).text.strip()


def _marks(system: LocalSystem, name: str) -> dict[str, bytes]:
    """What could show the person: the name, and each template's embedding in every form that is stored."""
    marks = {"name": name.encode()}
    for template in bootstrap.template_store(Settings.load()).templates("default"):
        if template.identity == name:
            kept = template.embedding.astype("<f2")
            codes, _ = quantise(kept.astype(np.float32)[None])
            own = template.template_id[:6]
            marks[f"{own} float32"] = template.embedding.astype("<f4").tobytes()
            marks[f"{own} float16"] = kept.tobytes()
            marks[f"{own} rounded float32"] = kept.astype("<f4").tobytes()
            marks[f"{own} codes"] = codes.tobytes()
    return marks


def _everything(system: LocalSystem) -> Iterator[tuple[str, bytes]]:
    """Yield every object, item and message of the system, and every file that its workers keep or have open."""
    session = boto3.Session(
        system.environ["AWS_ACCESS_KEY_ID"],
        system.environ["AWS_SECRET_ACCESS_KEY"],
        region_name=system.environ["AWS_DEFAULT_REGION"],
    )
    client: Any = session.client

    def service(name: str) -> Any:
        return client(name, endpoint_url=system.environ["AWS_ENDPOINT_URL"])

    yield from _objects(service("s3"))
    yield from _items(service("dynamodb"))
    yield from _messages(service("sqs"))
    for path in Settings.load().model.cache_dir.rglob("*"):
        if path.is_file():
            yield f"file {path}", path.name.encode() + b"\n" + path.read_bytes()
    for pid in system.processes("celery"):
        for path in _open_files(pid):
            yield f"open {path} {path.readlink()}", path.read_bytes()


def _objects(s3: Any) -> Iterator[tuple[str, bytes]]:
    for bucket in s3.list_buckets()["Buckets"]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for entry in page.get("Contents", []):
                body = s3.get_object(Bucket=bucket["Name"], Key=entry["Key"])["Body"].read()
                yield f"s3 {bucket['Name']} {entry['Key']}", entry["Key"].encode() + b"\n" + body


def _items(dynamodb: Any) -> Iterator[tuple[str, bytes]]:
    for table in dynamodb.list_tables()["TableNames"]:
        for page in dynamodb.get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                yield f"table {table} {_plain(item)[:80]!r}", _plain(item)


def _messages(sqs: Any) -> Iterator[tuple[str, bytes]]:
    for url in sqs.list_queues().get("QueueUrls", []):
        reply = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0)
        for message in reply.get("Messages", []):
            yield f"queue {url}", message["Body"].encode()


def _plain(value: Any) -> bytes:
    """Return all texts and bytes of an item, one after the other."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b" ".join(_plain(key) + b" " + _plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return b" ".join(map(_plain, value))
    return str(value).encode()


def _open_files(pid: int) -> Iterator[Path]:
    """Yield the files of a gallery that a process has open or mapped, also those that are deleted."""
    for folder in OPEN_FILES:
        for path in Path(f"/proc/{pid}/{folder}").iterdir():
            try:
                if "/galleries/" in str(path.readlink()):
                    yield path
            except OSError:  # it was closed just now
                continue


def _found(system: LocalSystem, marks: dict[str, bytes]) -> set[tuple[str, str]]:
    return {
        (where, mark) for where, content in _everything(system) for mark, sought in marks.items() if sought in content
    }


def test_nothing_of_an_erased_person_is_left_anywhere(erasing: LocalSystem) -> None:
    """Not in a bucket, a table, a queue, or a file of a worker; the receipt says so, and others are still known."""
    assert _recognise(erasing, "image_01.jpg").endswith(OBAMA)
    assert _recognise(erasing, "image_03.jpg").endswith(BIDEN)
    marks = _marks(erasing, OBAMA)
    before = _found(erasing, marks)
    places = {where.split()[0] + " " + where.split()[1] for where, _ in before}
    assert {"s3 facerec-out-bucket", "s3 facerec-gallery-bucket", "table facerec-templates"} <= places
    assert [where for where, mark in before if where.startswith("file") and mark.endswith("float16")]

    removed = erasing.run("people", "remove", OBAMA, "--yes", "--wait", "2m", "--json")
    answer = json.loads(removed.stdout)
    assert answer["complete"]
    assert not answer["still_owed"]
    readers = {place["place"].split()[0] for place in answer["places"] if place["confirmed_by"].count(":")}
    assert readers == {"process", "disk"}

    assert _found(erasing, marks) == set()
    assert _recognise(erasing, "image_03.jpg").endswith(BIDEN)
    assert "not recognized" in _recognise(erasing, "image_01.jpg")

    file = erasing.state / "receipt.json"
    erasing.run("people", "receipt", answer["erasure_id"], "--out", str(file))
    found = verified(file.read_bytes(), SigningKey.load(erasing.state / "receipts.pem").public_pem.encode())
    assert found.is_about(OBAMA, answer["subject_key"])
    assert OBAMA.encode() not in file.read_bytes()


def test_killed_removal_is_completed_by_the_ledger(erasing: LocalSystem) -> None:
    """While no worker answered, the command was killed: the web tier works off the rest."""
    assert _recognise(erasing, "image_03.jpg").endswith(BIDEN)
    marks = _marks(erasing, BIDEN)
    workers = erasing.processes("celery")
    assert workers
    erasures = bootstrap.erasures(Settings.load())
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        command = facerec("people", "remove", BIDEN, "--yes")
        removal = subprocess.Popen(command, cwd=CHECKOUT, env=erasing.environ, stdout=subprocess.DEVNULL)
        try:
            assert poll_until(lambda: any(each.passes for each in erasures.open()), 60)
        finally:
            removal.send_signal(signal.SIGKILL)
            removal.wait()
        (record,) = erasures.open()
        assert {place.name.split()[0] for place in record.still_owed} >= {"process", "disk"}
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert poll_until(lambda: not erasures.open(), 120)
    done = erasures.get(record.erasure_id)
    assert done is not None
    assert done.complete
    assert _found(erasing, marks) == set()
