"""Both functions with the real engine under Lambda's own runtime emulator, on real queues and buckets."""

import base64
import csv
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from facerec.aws.sqs.queue import SqsQueue
from facerec.dead_letters import DeadLetter
from facerec.edge.crops import edge_faces
from facerec.edge.frame import Frame
from facerec.edge_messages import results_topic
from facerec.engine.child import EngineSpec
from facerec.engine.loading import open_detector
from facerec.local.functions.events import UrlRequest, sqs_event, url_event
from facerec.local.functions.instance import Function, FunctionFailed, Instance
from facerec.messages import FacesMessage, Outcome, RecognitionResult
from facerec.object_keys import output_key
from facerec.processes.children import OrphanReaper
from facerec.provision.iam_policies import policy
from facerec.provision.iam_statements import Place
from facerec.settings.edge import IOT_MESSAGE_BYTES
from model.artefact import Artefact
from model.faces import PackedFaces
from tests.support.emulated import EmulatedAws
from tests.support.faults.poisoned_function import HANGING
from tests.support.faults.poisoned_worker import MARK
from tests.support.iam import ACCOUNT, IamGate, iam_gate
from tests.support.pictures import PORTRAIT
from tests.support.processes import CHECKOUT, facerec, run
from tests.support.workers import WorkerTier

DETECTION = "facerec.serverless.detection.handler"
RECOGNITION = "facerec.serverless.recognition.handler"
POISONED = "tests.support.faults.poisoned_function.handler"
EXAMPLES = CHECKOUT / "examples"
PHOTO = PORTRAIT.read_bytes()
TIMEOUT_SECONDS = 20


class FunctionTier(WorkerTier):
    """The resources of one test, with functions instead of workers."""

    def __init__(
        self,
        aws: EmulatedAws,
        folder: Path,
        artefact: Path,
        start: Callable[[Function], Instance],
        guard: Callable[[Any], IamGate],
    ) -> None:
        super().__init__(aws, aws.fresh(), folder)
        self.environ |= {
            "FACEREC_MODEL__DIR": str(artefact),
            "FACEREC_ENGINE": "onnxruntime",
            # A busy machine needs much of it.
            "FACEREC_SERVERLESS__TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
            "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "4",
            "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30",
        }
        self._start = start
        self._guard = guard
        self.gates: dict[str, IamGate] = {}
        """The gate of the latest instance of each function."""

    def function(self, handler: str, timeout_seconds: int = TIMEOUT_SECONDS) -> Instance:
        """An initialised instance of a function: under the emulator, the first invocation's time includes that.

        It may do what its role allows, and nothing else.
        """
        name = handler.split(".")[-2]
        role = "recognition" if handler == RECOGNITION else "detection"
        gate = self._guard(policy(role, Place(self.settings, ACCOUNT)))
        self.gates[name] = gate
        argv = (sys.executable, "-m", "awslambdaric", handler)
        environ = self.environ | {"FACEREC_AWS__ENDPOINT_URL": gate.url}
        instance = self._start(Function(name, argv, environ, 1769, timeout_seconds))
        with pytest.raises(FunctionFailed, match="does not take such an event"):
            self.invoke(instance, {})
        return instance

    def invoke_for_queue(self, function: Instance, name: str, count: int) -> dict[str, Any]:
        """Invoke a function with so many messages of a queue, as Lambda's poller does; returns its answer."""
        messages: list[Any] = []
        queue = SqsQueue(self.clients.sqs, name)
        while len(messages) < count:
            messages += queue.receive(count - len(messages), wait_seconds=5, attributes=["All"])
        answer: dict[str, Any] = self.invoke(
            function, sqs_event(messages, f"arn:aws:sqs:us-east-1:000000000000:{name}", "us-east-1")
        )
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        queue.delete_batch([each["ReceiptHandle"] for each in messages if each["MessageId"] not in failed])
        return answer

    def invoke(self, function: Instance, event: dict[str, Any]) -> Any:
        return json.loads(function.invoke(json.dumps(event).encode()))

    def call(self, function: Instance, **fields: str) -> tuple[int, dict[str, Any]]:
        """Call the URL of the detection function."""
        body, headers = json.dumps(fields).encode(), {"content-type": "application/json"}
        request = UrlRequest("POST", "/", "", headers, body, "127.0.0.1", "HTTP/1.1")
        answer = self.invoke(function, url_event(request, str(uuid.uuid4()), datetime.now(UTC)))
        return answer["statusCode"], json.loads(answer["body"])

    def dead_letters(self, name: str) -> Sequence[DeadLetter]:
        """What is in a dead-letter queue."""
        received = SqsQueue(self.clients.sqs, name).receive(wait_seconds=1, message_attributes=True)
        attributes = [each.get("MessageAttributes", {}) for each in received]
        return [
            DeadLetter(
                each["MessageId"],
                each["Body"],
                datetime.now(UTC),
                1,
                each["ReceiptHandle"],
                {name: value["StringValue"] for name, value in found.items()},
            )
            for each, found in zip(received, attributes, strict=True)
        ]


@pytest.fixture
def functions(
    emulator: EmulatedAws, tmp_path: Path, artefact_dir: Path, runtime_emulator: Path
) -> Iterator[FunctionTier]:
    """A tier whose functions end with the test."""
    with ExitStack() as running:
        reaper = OrphanReaper()
        running.callback(reaper.close)

        def start(function: Function) -> Instance:
            log = tmp_path / f"{function.name}.log"
            return running.enter_context(Instance(function, runtime_emulator, reaper, log))

        tier = FunctionTier(
            emulator, tmp_path, artefact_dir, start, lambda role: running.enter_context(iam_gate(emulator.url, role))
        )
        yield tier
        assert {name: gate.refused for name, gate in tier.gates.items() if gate.refused} == {}


def test_photos_pass_through_both_functions(functions: FunctionTier) -> None:
    """Messages of the web tier, a photo put into S3 and a call of the URL end as the same results."""
    settings = functions.settings
    enrol = facerec("enrol", "--folder", str(EXAMPLES / "gallery"))
    subprocess.run(enrol, env=functions.environ, cwd=CHECKOUT, check=True, capture_output=True)
    detection, recognition = functions.function(DETECTION), functions.function(RECOGNITION)
    with (EXAMPLES / "expected.csv").open() as file:
        expected = {row["file"]: (row["outcome"], row["name"]) for row in csv.DictReader(file)}
    sent = {name: functions.upload((EXAMPLES / "probes" / name).read_bytes(), name) for name in expected}
    assert functions.invoke_for_queue(detection, settings.request_queue, 5) == {"batchItemFailures": []}
    assert functions.invoke_for_queue(recognition, settings.faces_queue, 4) == {"batchItemFailures": []}
    answers = {answer.filename: answer for answer in functions.answers(*sent.values())}
    assert {name: str(answer.outcome) for name, answer in answers.items()} == {n: row[0] for n, row in expected.items()}
    assert [answers[name].result for name, row in expected.items() if row[1]] == [
        r[1] for r in expected.values() if r[1]
    ]
    for request in sent.values():
        stored = functions.store.get(settings.output_bucket, output_key(request.request_id, request.filename))
        assert RecognitionResult.parse(stored) == answers[request.filename]

    photo = (EXAMPLES / "probes" / "image_01.jpg").read_bytes()
    called = str(uuid.uuid4())
    fields = {"request_id": called, "content": base64.b64encode(photo).decode(), "filename": "image_01.jpg"}
    assert functions.call(detection, **fields) == (202, {"request_id": called, "faces": 1})
    put = s3_put(functions, "inbox/Präsident 1.jpg", photo)
    assert functions.invoke(detection, put) is None
    assert functions.invoke_for_queue(recognition, settings.faces_queue, 2) == {"batchItemFailures": []}
    status, again = functions.call(detection, **fields)
    assert (status, again["result"]) == (200, "Barack Obama")
    assert functions.invoke(detection, put) is None
    results = [message["Body"] for message in taken(functions, settings.response_queue, 4)]
    names = sorted((json.loads(result)["filename"], json.loads(result)["result"]) for result in results)
    assert names == [("Präsident 1.jpg", "Barack Obama")] * 2 + [("image_01.jpg", "Barack Obama")] * 2
    for queue in (settings.request_queue, settings.faces_queue, settings.dead_letter_queue):
        assert functions.left(queue) == 0
    unused = {name: beyond_lambda(gate) for name, gate in functions.gates.items()}
    assert unused["detection"] == {"TellMissingFromForbidden s3:ListBucket"}  # not called, as in a worker
    assert unused["recognition"] == {
        "TellMissingFromForbidden s3:ListBucket",
        "ReadGallery dynamodb:BatchGetItem",
        "ReadGallerySnapshots s3:GetObject",  # nothing has been published
        "ReadObjects s3:GetObject",  # the crops were in the messages
        "AnswerDevices iot:Publish",  # the photos were no devices'
        "FindDevicesEndpoint iot:DescribeEndpoint",  # the emulator's is known
    }


def beyond_lambda(gate: IamGate) -> set[str]:
    """What no call used, but for what Lambda does itself, and the visibility of messages that fail."""
    own = {"logs", "xray"}
    unused = {entry for entry in gate.unused() if entry.split()[1].partition(":")[0] not in own}
    return {entry for entry in unused if not entry.startswith(("TakeFaces", "TakeTasks"))}


def test_poisoned_photo_of_a_batch_costs_only_itself(functions: FunctionTier) -> None:
    """One crashes the engine, later one hangs it: each is found within the time of its invocation."""
    settings = functions.settings
    function = functions.function(POISONED)
    for mark in (MARK, HANGING):
        requests = [functions.upload(PHOTO + (mark if number == 3 else b""), "a.jpg") for number in range(10)]
        culprit = requests.pop(3)
        functions.invoke_for_queue(function, settings.request_queue, 10)
        # A busy machine does not finish all of them at once; what it finishes too late goes onward twice.
        while functions.left(settings.request_queue):
            functions.invoke_for_queue(function, settings.request_queue, 1)
        (answer,) = functions.answers(culprit)
        assert (answer.outcome, answer.retryable) == (Outcome.FAILED, False)
        passed: set[uuid.UUID] = set()
        while not {request.request_id for request in requests} <= passed:
            # A photo may come twice, as one of an invocation that ran out of time.
            messages = SqsQueue(functions.clients.sqs, settings.faces_queue).receive(wait_seconds=5)
            passed |= {FacesMessage.parse(each["Body"]).request.request_id for each in messages}
        assert culprit.request_id not in passed
        (letter,) = functions.dead_letters(settings.dead_letter_queue)
        assert letter.request_id == str(culprit.request_id)
        assert ("crashed" if mark == MARK else "exceeded") in letter.reason
        SqsQueue(functions.clients.sqs, settings.dead_letter_queue).delete_batch([letter.receipt])


def test_redriven_photos_of_both_dead_letter_queues_are_answered(functions: FunctionTier) -> None:
    """A photo of the URL that a former engine could not process, and then its faces, which were of another model."""
    settings, request_id = functions.settings, str(uuid.uuid4())
    photo = base64.b64encode(PHOTO + MARK).decode()
    poisoned = functions.function(POISONED)
    assert functions.call(poisoned, request_id=request_id, content=photo, filename="a.jpg")[0] == 500
    redrive(functions)
    functions.invoke_for_queue(functions.function(DETECTION), settings.request_queue, 1)
    faces = SqsQueue(functions.clients.sqs, settings.faces_queue)
    (message,) = faces.receive(wait_seconds=5)
    request = FacesMessage.parse(message["Body"]).request
    assert functions.answers(request)[0].outcome is Outcome.FAILED
    faces.delete_batch([message["ReceiptHandle"]])
    SqsQueue(functions.clients.sqs, settings.faces_dead_letter_queue).send(message["Body"])
    redrive(functions, "--faces")
    functions.invoke_for_queue(functions.function(RECOGNITION), settings.faces_queue, 1)
    assert functions.answers(request)[0].outcome is Outcome.UNKNOWN


def test_faces_of_a_device_are_recognised_and_sent_back(functions: FunctionTier, artefact_dir: Path) -> None:
    """Its own message, one with the fields of the contract alone, and one whose crop is no such JPEG."""
    settings = functions.settings
    enrol = facerec("enrol", "--folder", str(EXAMPLES / "gallery"))
    subprocess.run(enrol, env=functions.environ, cwd=CHECKOUT, check=True, capture_output=True)
    thing = f"t{uuid.uuid4().hex[:12]}"
    function, faces = functions.function(RECOGNITION), SqsQueue(functions.clients.sqs, settings.faces_queue)
    whole = device_message(artefact_dir, thing, "image_05.jpg")
    contract = ("request_id", "filename", "face_index", "box", "encoded", "captured_at", "thing")
    alone = device_message(artefact_dir, thing, "image_03.jpg")
    bare = {name: alone[name] for name in contract}
    broken = bare | {"request_id": str(uuid.uuid4()), "encoded": base64.b64encode(PHOTO).decode()}
    for message in (whole, bare, broken):
        faces.send(json.dumps(message))
    with subscribed(functions, thing) as received:
        assert functions.invoke_for_queue(function, settings.faces_queue, 3) == {"batchItemFailures": []}
        to_device = received()
    results = [RecognitionResult.parse(message["Body"]) for message in taken(functions, settings.response_queue, 3)]
    answers = {str(result.request_id): result for result in results}
    named = [answers[message["request_id"]].result for message in (whole, bare)]
    assert named == ["Barack Obama", "Joe Biden"]
    assert {answer.thing for answer in answers.values()} == {thing}
    assert to_device == [answers[whole["request_id"]]]
    failed = answers[broken["request_id"]]
    assert (failed.outcome, failed.retryable) == (Outcome.FAILED, True)
    (letter,) = functions.dead_letters(settings.faces_dead_letter_queue)
    assert (letter.request_id, json.loads(letter.body)) == (broken["request_id"], broken)
    assert "the crop of face 0 cannot be used: it is a JPEG of 533 by 800 pixels" in letter.reason
    assert "AnswerDevices iot:Publish" in functions.gates["recognition"].used


def device_message(artefact_dir: Path, thing: str, photo: str) -> dict[str, Any]:
    """What a device with this model sends for a photo."""
    spec = EngineSpec(artefact_dir, "onnxruntime", 50, artefact_dir)
    (found,) = open_detector(spec).analyse_batch([(EXAMPLES / "probes" / photo).read_bytes()])
    assert isinstance(found, PackedFaces)
    message: dict[str, Any] = json.loads(
        edge_faces(
            found,
            Frame(uuid.uuid4(), photo, b"", datetime.now(UTC)),
            thing=thing,
            model_id=Artefact.load(artefact_dir).model_id,
            results=True,
            quality=95,
            min_quality=90,
            max_bytes=IOT_MESSAGE_BYTES,
        )
    )
    return message


@contextmanager
def subscribed(tier: FunctionTier, thing: str) -> Iterator[Callable[[], list[RecognitionResult]]]:
    """Stand for a device: what the function returns was published on the device's topic within the block."""
    url = tier.clients.sqs.create_queue(QueueName=thing)["QueueUrl"]
    action: Any = {"sqs": {"queueUrl": url, "roleArn": f"arn:aws:iam::{ACCOUNT}:role/rules", "useBase64": False}}
    sql = f"SELECT * FROM '{results_topic(thing)}'"  # noqa: S608 - of IoT's rules, on a topic of ours
    rule: Any = {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": [action]}
    tier.clients.iot.create_topic_rule(ruleName=thing, topicRulePayload=rule)
    yield lambda: [RecognitionResult.parse(each["Body"]) for each in taken(tier, thing, 1)]
    tier.clients.iot.delete_topic_rule(ruleName=thing)


def redrive(tier: FunctionTier, *options: str) -> None:
    """Send every dead letter of a queue to where it came from."""
    done = run("dlq", *options, "redrive", "--all", "--yes", environ=tier.environ)
    assert done.returncode == 0, done.stderr


def test_garbage_is_dead_lettered_by_both_functions(functions: FunctionTier) -> None:
    """With its reason, in the queue of its function; what calls the URL with garbage reads what is wrong."""
    settings = functions.settings
    for handler, queue, dead in (
        (DETECTION, settings.request_queue, settings.dead_letter_queue),
        (RECOGNITION, settings.faces_queue, settings.faces_dead_letter_queue),
    ):
        function = functions.function(handler)
        SqsQueue(functions.clients.sqs, queue).send("garbage")
        assert functions.invoke_for_queue(function, queue, 1) == {"batchItemFailures": []}
        (letter,) = functions.dead_letters(dead)
        assert letter.attributes["reason"]
        assert letter.body == "garbage"
    detection = functions.function(DETECTION)
    assert functions.call(detection, request_id="7")[0] == 400


def test_missing_model_ends_the_function_with_one_sentence(functions: FunctionTier, tmp_path: Path) -> None:
    """Lambda shows it as the error of the init phase."""
    functions.environ |= {"FACEREC_MODEL__DIR": str(tmp_path / "nothing")}
    with pytest.raises(AssertionError):  # the instance fails otherwise than by the event
        functions.function(DETECTION)
    assert "facerec model build" in (tmp_path / "detection.log").read_text()


def s3_put(tier: FunctionTier, key: str, photo: bytes) -> dict[str, Any]:
    """Put a photo into the input bucket; returns the event that S3 sends for it."""
    tier.store.put(tier.settings.input_bucket, key, photo, "image/jpeg")
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": datetime.now(UTC).isoformat(),
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": tier.settings.input_bucket},
            "object": {"key": quote_plus(key), "size": len(photo), "eTag": "e", "sequencer": "0055AED6DCD90281E5"},
        },
    }
    return {"Records": [record]}


def taken(tier: FunctionTier, name: str, count: int) -> list[Any]:
    """At least so many messages of a queue: all that it has then. They are deleted."""
    queue = SqsQueue(tier.clients.sqs, name)
    found: list[Any] = []
    while len(found) < count or tier.left(name):
        found += (received := queue.receive(wait_seconds=5))
        queue.delete_batch([each["ReceiptHandle"] for each in received])
    return found
