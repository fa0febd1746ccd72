"""The judge of the fault harness sees what is lost, wrong, dead or there twice; nothing goes by unseen."""

from typing import Any

import pytest

from tests.support.faults.clients import Photo, Story
from tests.support.faults.rules import Call
from tests.support.faults.verdict import Ledger, Remains, judge

ID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
JANE = Photo("a.jpg", b"", "Jane")
POISON = Photo("a.jpg", b"", None)


def stored(request_id: str = ID, name: str = "Jane", outcome: str = "match") -> dict[str, Any]:
    """A stored result for `a.jpg`."""
    return {"request_id": request_id, "filename": "a.jpg", "result": name, "outcome": outcome}


def told(story: Story, outputs: dict[str, list[dict[str, Any]]], dead: dict[str, str | None] | None = None) -> Any:
    """The counts for one client whose task SQS took: lost, wrong, seen twice, dead amiss."""
    row = judge([story], Remains({ID: "a.jpg"}, outputs, dead or {}, {}), {ID, OTHER}, lambda _: None)
    return row["lost"], row["wrong"], row["duplicates_visible"], row["dlq_amiss"]


ANSWERED = Story(JANE, text="a:Jane", request_id=ID)


@pytest.mark.parametrize(
    ("story", "outputs", "dead", "counts"),
    [
        (ANSWERED, {ID: [stored()]}, {}, (0, 0, 0, 0)),
        (Story(JANE, fetched=stored(), request_id=ID), {ID: [stored()]}, {}, (0, 0, 0, 0)),
        (Story(JANE, text="a:Joe", request_id=ID), {ID: [stored(name="Joe")]}, {}, (0, 2, 0, 0)),
        (Story(JANE, text="b:Jane", request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (ANSWERED, {ID: [stored(OTHER)]}, {}, (0, 1, 0, 0)),
        (ANSWERED, {ID: [stored()], OTHER: [stored(OTHER)]}, {}, (0, 0, 0, 0)),
        (ANSWERED, {ID: [stored(), stored()]}, {}, (0, 0, 1, 0)),
        (ANSWERED, {ID: [stored(name="Unknown")]}, {}, (0, 1, 1, 0)),
        (Story(JANE), {}, {}, (2, 0, 0, 0)),
        (Story(JANE, request_id=ID), {}, {}, (1, 0, 0, 0)),
        (Story(JANE, text="a:Jane", request_id=OTHER), {OTHER: [stored(OTHER)]}, {}, (1, 0, 0, 0)),
        (Story(JANE, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: "it died"}, (1, 0, 0, 1)),
        (Story(JANE, request_id=ID), {}, {ID: None}, (1, 0, 0, 1)),
        (Story(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: "x"}, (0, 0, 0, 0)),
        (Story(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: None}, (0, 0, 0, 1)),
        (Story(POISON), {ID: [stored(outcome="failed")]}, {ID: "x"}, (1, 0, 0, 0)),
        (Story(JANE, fetched=stored(name="Joe"), request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (Story(JANE, fetched=stored(OTHER), request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (Story(JANE, fetched=stored(outcome="failed"), request_id=ID), {ID: [stored()]}, {}, (1, 0, 0, 0)),
        (
            Story(POISON, fetched=stored(outcome="failed"), request_id=ID),
            {ID: [stored(outcome="failed")]},
            {ID: "x"},
            (0, 0, 0, 0),
        ),
        (Story(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {}, (1, 0, 0, 0)),
    ],
)
def test_what_became_of_a_photo(story: Story, outputs: Any, dead: Any, counts: tuple[int, ...]) -> None:
    """Whatever a client or AWS shows has its count."""
    assert told(story, outputs, dead) == counts


def test_only_the_tasks_of_these_clients_count_as_redelivered() -> None:
    """What was delivered again before says nothing of this fault."""
    again = {OTHER}
    left = Remains({ID: "a.jpg", OTHER: "of before.jpg"}, {ID: [stored()], OTHER: [stored(OTHER)]}, {}, {}, again)
    assert judge([ANSWERED], left, {ID, OTHER}, lambda _: None)["redelivered"] == 0
    again.add(ID)
    assert judge([ANSWERED], left, {ID, OTHER}, lambda _: None)["redelivered"] == 1


def test_a_task_counts_once_sqs_has_taken_it() -> None:
    """Refused sends, other queues and other calls owe nobody an answer."""
    ledger = Ledger("x-req-queue")
    body = '{"QueueUrl": "http://aws/1/x-%s-queue", "MessageBody": "… \\"id\\": \\"%s\\""}'
    ledger.note(Call("sqs", "SendMessage", "/", (body % ("req", ID)).encode()), 503)
    ledger.note(Call("sqs", "SendMessage", "/", (body % ("resp", ID)).encode()), 200)
    ledger.note(Call("sqs", "DeleteMessage", "/", (body % ("req", ID)).encode()), 200)
    assert ledger.ids() == set()
    ledger.note(Call("sqs", "SendMessage", "/", (body % ("req", ID)).encode()), 200)
    assert ledger.ids() == {ID}
