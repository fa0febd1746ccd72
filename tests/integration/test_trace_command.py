"""`facerec trace` as an operator runs it, on an emulated AWS."""

import json
import uuid
from datetime import UTC, datetime

from facerec.aws.clients import Clients
from facerec.aws.object_store import S3ObjectStore
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import input_key, output_key
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import run


def test_the_store_is_asked_and_its_silence_is_told(emulator: EmulatedAws, fresh: Settings) -> None:
    """What it has is told; without it, and without logs, there is an answer all the same."""
    store, request_id = S3ObjectStore(Clients(fresh)), uuid.uuid4()
    environ = environ_of(fresh, emulator.environ)
    store.put(fresh.input_bucket, input_key(request_id, "jane.jpg"), b"jpg", "image/jpeg")
    result = RecognitionResult(
        request_id=request_id, result="Jane", filename="jane.jpg", outcome=Outcome.MATCH, completed_at=datetime.now(UTC)
    )
    store.put(fresh.output_bucket, output_key(request_id, "jane.jpg"), result.to_json().encode(), "application/json")
    known = run("trace", str(request_id), "--json", environ=environ)
    steps = json.loads(known.stdout)["steps"]
    assert [step["what"] for step in steps] == ["photo lies there", "result lies there"]
    assert steps[1]["facts"]["result"] == "Jane"

    unreachable = run("trace", str(request_id), environ=environ | {"FACEREC_AWS__ENDPOINT_URL": "http://127.0.0.1:9"})
    assert unreachable.returncode == 1
    assert "the object store could not be asked" in unreachable.stderr
    assert "Traceback" not in unreachable.stderr
