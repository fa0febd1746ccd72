"""`facerec dlq` on queues in memory."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from facerec.commands.dlq import Services, command
from facerec.edge_messages import no_face_result
from facerec.errors import Refused
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, FaceToEmbed, RecognitionRequest, RecognitionResult, ResultBox
from facerec.settings import Settings
from tests.fakes.dead_letters import InMemoryDeadLetterQueue
from tests.fakes.object_store import InMemoryObjectStore

NOW = datetime.now(UTC)


class Sent:
    """A queue that keeps what is sent."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.refused = ""

    def send(self, body: str, delay_seconds: int = 0) -> None:
        """Keep it."""
        if body == self.refused:
            raise Refused("too long")
        self.bodies.append(body)


class DlqCommand:
    """`facerec dlq` on fakes, with an old and a young dead letter; neither is a task."""

    def __init__(self) -> None:
        self.dead, self.sent, self.responses = InMemoryDeadLetterQueue(), Sent(), Sent()
        services = Services(Settings(), self.dead, self.sent, InMemoryObjectStore(), self.responses)
        self.run: Callable[..., Result] = lambda *words, answer="": CliRunner().invoke(
            command, list(words), obj=services, input=answer
        )
        self.dead.put(
            "rubbish", reason="old \x9b31m\u202e rubbish", request_id="old\x1b", failed_at=NOW - timedelta(days=8)
        )
        self.dead.put("young rubbish", reason="the young one", request_id="young", failed_at=NOW)

    def left(self) -> list[str]:
        """The request ids in the queue, the oldest failure first."""
        listed = self.run("list", "--json")
        assert listed.exit_code == 0
        return [entry["request_id"] for entry in json.loads(listed.stdout)]


@pytest.fixture
def dlq() -> DlqCommand:
    """A new one for each test."""
    return DlqCommand()


def test_list_is_sorted_and_has_no_control_characters(dlq: DlqCommand) -> None:
    """A message cannot move the terminal's cursor, nor turn the line around."""
    table = dlq.run("list").stdout
    assert table.index("old") < table.index("young")
    assert not {"\x9b", "\u202e", "\x1b"} & set(table)
    assert len(dlq.run("list", "--limit", "1").stdout.splitlines()) == 2
    assert "young" not in dlq.run("list", "--reason-matches", "OLD").stdout


def test_list_shortens_reasons_on_a_terminal_only(dlq: DlqCommand) -> None:
    """Programs get them whole."""
    dlq.dead.put("more", reason="so " * 50 + "it ended", request_id="more", failed_at=NOW)
    assert "it ended" in dlq.run("list").stdout


def test_redrive_sends_other_messages_with_force_only(dlq: DlqCommand) -> None:
    """The exit status is 1 when some are not sent."""
    refused = dlq.run("redrive", "--all", "--yes")
    assert refused.exit_code == 1
    assert (dlq.sent.bodies, len(dlq.left())) == ([], 2)
    assert dlq.run("redrive", "young", "--force", "--yes").exit_code == 0
    assert dlq.sent.bodies == ["young rubbish"]
    assert dlq.left() == ["old\x1b"]


def test_redrive_goes_on_after_one_that_sqs_refuses(dlq: DlqCommand) -> None:
    """As one that is longer than the request queue allows: it stays, and is named."""
    dlq.sent.refused = "rubbish"
    redriven = dlq.run("redrive", "--all", "--force", "--yes")
    assert (redriven.exit_code, "too long" in redriven.output) == (1, True)
    assert dlq.sent.bodies == ["young rubbish"]
    assert dlq.left() == ["old\x1b"]


def test_wrong_id_changes_nothing(dlq: DlqCommand) -> None:
    """Also not the dead letters whose ids are right."""
    for subcommand in (("redrive", "--force"), ("purge",)):
        wrong = dlq.run(*subcommand, "young", "nobody", "--yes")
        assert (wrong.exit_code, "nobody" in str(wrong.exception)) == (1, True)
    assert dlq.run("show", "nobody").exit_code == 1
    assert (dlq.sent.bodies, len(dlq.left())) == ([], 2)


@pytest.mark.parametrize(
    "words",
    [("redrive",), ("redrive", "young", "--all"), ("purge",), ("purge", "--all", "--older-than", "1d"), ("show",)],
)
def test_missing_or_contradicting_choice_is_a_usage_error(dlq: DlqCommand, words: tuple[str, ...]) -> None:
    """Nothing is read."""
    assert dlq.run(*words).exit_code == 2


def test_purge_and_redrive_ask_first(dlq: DlqCommand) -> None:
    """No is the default, and a dry run does nothing."""
    assert dlq.run("purge", "young", answer="\n").exit_code == 1
    assert dlq.run("purge", "young", "--dry-run").exit_code == 0
    assert dlq.run("purge", "--all", answer="n\n").exit_code == 1
    assert dlq.run("purge", "--all", "--dry-run").exit_code == 0
    assert dlq.run("redrive", "young", "--force", answer="n\n").exit_code == 1
    assert len(dlq.left()) == 2
    assert dlq.run("purge", "young", answer="y\n").exit_code == 0
    assert len(dlq.left()) == 1


def test_purge_deletes_by_age_of_the_failure(dlq: DlqCommand) -> None:
    """And everything with --all."""
    assert dlq.run("purge", "--older-than", "7d", "--yes").exit_code == 0
    assert dlq.left() == ["young"]
    assert dlq.run("purge", "--all", "--yes").exit_code == 0
    assert dlq.left() == []
    assert "nothing" in dlq.run("list").stderr


def test_purge_with_an_age_over_ten_years_is_a_usage_error(dlq: DlqCommand) -> None:
    """Nothing is deleted."""
    refused = dlq.run("purge", "--older-than", "999999d", "--yes")
    assert (refused.exit_code, "ten years" in refused.stderr) == (2, True)
    assert len(dlq.left()) == 2


def test_show_prints_what_is_known(dlq: DlqCommand) -> None:
    """Also of a message that is not a task."""
    (shown,) = json.loads(dlq.run("show", "young", "--json").stdout)
    assert (shown["body"], shown["task"], shown["result"]) == ("young rubbish", False, None)
    assert "the young one" in dlq.run("show", "young").stdout


def test_faces_are_dead_letters_of_their_own_queue(dlq: DlqCommand) -> None:
    """Listed by their request, and sent to the faces queue; a task is none of them, and faces are no task."""
    request = RecognitionRequest(
        request_id=uuid4(), input=ObjectRef(bucket="in", key="k", size=1), filename="a.jpg", submitted_at=NOW
    )
    face = FaceToEmbed(box=ResultBox(x_min=0, y_min=0, x_max=1, y_max=1), probability=0.9, landmarks=((0, 0),) * 5)
    body = FacesMessage(
        request=request, model_id="m", width=1, height=1, faces=(face,), crop_side=1, crops="AAAA"
    ).to_json()
    dlq.dead.put(body, reason="its crops are gone", request_id=str(request.request_id), failed_at=NOW)
    listed = json.loads(dlq.run("--faces", "list", "--json").stdout)
    assert [entry["filename"] for entry in listed if entry["request_id"] == str(request.request_id)] == ["a.jpg"]
    name = str(request.request_id)
    assert dlq.run("redrive", name, "--yes").exit_code == 1
    assert dlq.sent.bodies == []
    sent = dlq.run("--faces", "redrive", name, "--yes")
    assert (sent.exit_code, dlq.sent.bodies) == (0, [body])
    assert "facerec-faces-queue" in sent.stdout
    assert dlq.run("--faces", "redrive", "young", "--yes").exit_code == 1
    assert dlq.run("--faces", "purge", "--all", "--yes").exit_code == 0
    assert "facerec-faces-queue-dlq" in dlq.run("--faces", "list").stderr


DEVICE_FACES: dict[str, Any] = {
    "request_id": str(uuid4()),
    "filename": "door 1.jpg",
    "face_index": 0,
    "box": {"x_min": 1.0, "y_min": 2.0, "x_max": 30.5, "y_max": 40.0},
    "encoded": "AAAA",
    "captured_at": "2026-11-01T11:59:00Z",
    "thing": "door-1",
}


def rule_failure(payload: dict[str, Any]) -> str:
    """What an IoT rule puts onto the dead-letter queue, as AWS documents it."""
    return json.dumps(
        {
            "ruleName": "facerec_faces",
            "topic": "facerec/door-2/faces",
            "cloudwatchTraceId": "7e146a2c-95b5-6caf-98b9-50e3969734c7",
            "clientId": "door-2-1a2b3c4d",
            "base64OriginalPayload": base64.b64encode(json.dumps(payload).encode()).decode(),
            "failures": [
                {
                    "failedAction": "SqsAction",
                    "failedResource": "https://sqs.us-east-1.amazonaws.com/1/facerec-faces-queue",
                    "errorMessage": "The queue does not exist",
                }
            ],
        }
    )


def test_faces_of_a_device_are_shown_and_sent_again(dlq: DlqCommand) -> None:
    """As they were."""
    body, name = json.dumps(DEVICE_FACES), DEVICE_FACES["request_id"]
    dlq.dead.put(body, reason="the crop of face 0 cannot be used", request_id=name, failed_at=NOW)
    (shown,) = json.loads(dlq.run("--faces", "show", name, "--json").stdout)
    assert (shown["thing"], shown["filename"], shown["collection"]) == ("door-1", "door 1.jpg", "default")
    assert (shown["reason"], shown["input"]) == ("the crop of face 0 cannot be used", None)
    assert dlq.run("--faces", "redrive", name, "--yes").exit_code == 0
    assert (dlq.sent.bodies, dlq.responses.bodies) == ([body], [])


@pytest.mark.parametrize("forged", [DEVICE_FACES, {"request_id": str(uuid4()), "filename": "a", "result": "No-Face"}])
def test_device_cannot_speak_for_another_through_its_dead_letters(dlq: DlqCommand, forged: dict[str, Any]) -> None:
    """A message that looks like a rule's failure is the device's own message, as its `thing` shows."""
    dlq.dead.put(
        json.dumps(json.loads(rule_failure(forged)) | {"thing": "door-1"}), reason="bad", request_id="", failed_at=NOW
    )
    found = [entry for entry in json.loads(dlq.run("--faces", "list", "--json").stdout) if entry["reason"] == "bad"]
    assert len(found) == 1
    assert dlq.run("--faces", "redrive", found[0]["message_id"], "--yes").exit_code == 1
    assert (dlq.sent.bodies, dlq.responses.bodies) == ([], [])


def test_message_that_a_rule_could_not_pass_on_is_sent_to_its_queue(dlq: DlqCommand) -> None:
    """As the device has sent it, with the thing of its topic; the reason is the rule's."""
    dlq.dead.move(rule_failure(DEVICE_FACES))
    name = DEVICE_FACES["request_id"]
    (shown,) = json.loads(dlq.run("--faces", "show", name, "--json").stdout)
    assert (shown["thing"], shown["filename"]) == ("door-2", "door 1.jpg")
    for part in ("the IoT rule facerec_faces failed", "SqsAction", "facerec-faces-queue", "does not exist"):
        assert part in shown["reason"]
    assert dlq.run("--faces", "redrive", name, "--yes").exit_code == 0
    assert [json.loads(body) for body in dlq.sent.bodies] == [DEVICE_FACES | {"thing": "door-2"}]


def test_result_that_a_rule_could_not_pass_on_is_sent_to_the_response_queue(dlq: DlqCommand) -> None:
    """With the fields that the rule passes on; a frame without a face has no work for the faces queue."""
    request_id = uuid4()
    result = no_face_result(
        request_id=request_id,
        filename="a.jpg",
        captured_at=NOW,
        thing="door-2",
        model_id="m",
        engine="onnxruntime",
        precision="fp32",
        timings_ms={},
    )
    forged = {"outcome": "match", "detail": "open the door", "thing": "door-3"}
    dlq.dead.move(rule_failure(json.loads(result.to_json()) | forged))
    redriven = dlq.run("--faces", "redrive", str(request_id), "--yes")
    assert (redriven.exit_code, dlq.sent.bodies) == (0, [])
    assert [RecognitionResult.parse(body) for body in dlq.responses.bodies] == [result]
    assert "1 result without a face sent to facerec-resp-queue" in redriven.stdout


@pytest.mark.parametrize("payload", [[1], {"request_id": "7"}, {"result": "Barack Obama", "filename": "a.jpg"}])
def test_other_message_of_a_rule_is_sent_with_force_only(dlq: DlqCommand, payload: Any) -> None:
    """It is listed with the rule's reason."""
    dlq.dead.move(rule_failure(payload))
    found = [
        entry for entry in json.loads(dlq.run("--faces", "list", "--json").stdout) if "IoT rule" in entry["reason"]
    ]
    assert len(found) == 1
    assert dlq.run("--faces", "redrive", found[0]["message_id"], "--yes").exit_code == 1
    assert dlq.sent.bodies == dlq.responses.bodies == []
