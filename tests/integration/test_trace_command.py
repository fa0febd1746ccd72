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


def test_trace_reads_the_store_and_says_when_it_cannot(emulator: EmulatedAws, fresh: Settings) -> None:
    """Without the store and without logs it ends with a sentence."""
    store, request_id = S3ObjectStore(Clients(fresh)), uuid.uuid4()
    environ = environ_of(fresh, emulator.environ)
    store.put(fresh.input_bucket, input_key(request_id, "jane.jpg"), b"jpg", "image/jpeg")
    result = RecognitionResult(
        request_id=request_id, result="Jane", filename="jane.jpg", outcome=Outcome.MATCH, completed_at=datetime.now(UTC)
    )
    store.put(fresh.output_bucket, output_key(request_id, "jane.jpg"), result.to_json().encode(), "application/json")
    known = run("trace", str(request_id), "--json", environ=environ)
    steps = json.loads(known.stdout)["steps"]
    assert [step["what"] for step in steps] == ["photo in the store", "result in the store"]
    assert steps[1]["facts"]["result"] == "Jane"

    unreachable = run("trace", str(request_id), environ=environ | {"FACEREC_AWS__ENDPOINT_URL": "http://127.0.0.1:9"})
    assert unreachable.returncode == 1
    assert "the object store could not be read" in unreachable.stderr
    assert "Traceback" not in unreachable.stderr
