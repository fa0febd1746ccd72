"""The fault harness counts every photo that is lost, wrong, dead-lettered or answered twice."""

from typing import Any

import pytest

from tests.support.faults.clients import ClientOutcome, Photo
from tests.support.faults.outcomes import AcceptedTasks, FinalState, judge
from tests.support.faults.rules import Call

ID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
JANE = Photo("a.jpg", b"", "Jane")
POISON = Photo("a.jpg", b"", None)


def stored(request_id: str = ID, name: str = "Jane", outcome: str = "match") -> dict[str, Any]:
    """A stored result for `a.jpg`."""
    return {"request_id": request_id, "filename": "a.jpg", "result": name, "outcome": outcome}


def told(
    outcome: ClientOutcome, outputs: dict[str, list[dict[str, Any]]], dead: dict[str, str | None] | None = None
) -> Any:
    """The counts for one client whose task SQS took: lost, wrong, seen twice, dead amiss."""
    row = judge([outcome], FinalState({ID: "a.jpg"}, outputs, dead or {}, {}), {ID, OTHER}, lambda _: None)
    return row["lost"], row["wrong"], row["duplicates_visible"], row["dlq_amiss"]


ANSWERED = ClientOutcome(JANE, text="a:Jane", request_id=ID)


@pytest.mark.parametrize(
    ("outcome", "outputs", "dead", "counts"),
    [
        (ANSWERED, {ID: [stored()]}, {}, (0, 0, 0, 0)),
        (ClientOutcome(JANE, fetched=stored(), request_id=ID), {ID: [stored()]}, {}, (0, 0, 0, 0)),
        (ClientOutcome(JANE, text="a:Joe", request_id=ID), {ID: [stored(name="Joe")]}, {}, (0, 2, 0, 0)),
        (ClientOutcome(JANE, text="b:Jane", request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (ANSWERED, {ID: [stored(OTHER)]}, {}, (0, 1, 0, 0)),
        (ANSWERED, {ID: [stored()], OTHER: [stored(OTHER)]}, {}, (0, 0, 0, 0)),
        (ANSWERED, {ID: [stored(), stored()]}, {}, (0, 0, 1, 0)),
        (ANSWERED, {ID: [stored(name="Unknown")]}, {}, (0, 1, 1, 0)),
        (ClientOutcome(JANE), {}, {}, (2, 0, 0, 0)),
        (ClientOutcome(JANE, request_id=ID), {}, {}, (1, 0, 0, 0)),
        (ClientOutcome(JANE, text="a:Jane", request_id=OTHER), {OTHER: [stored(OTHER)]}, {}, (1, 0, 0, 0)),
        (ClientOutcome(JANE, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: "it died"}, (1, 0, 0, 1)),
        (ClientOutcome(JANE, request_id=ID), {}, {ID: None}, (1, 0, 0, 1)),
        (ClientOutcome(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: "x"}, (0, 0, 0, 0)),
        (ClientOutcome(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {ID: None}, (0, 0, 0, 1)),
        (ClientOutcome(POISON), {ID: [stored(outcome="failed")]}, {ID: "x"}, (1, 0, 0, 0)),
        (ClientOutcome(JANE, fetched=stored(name="Joe"), request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (ClientOutcome(JANE, fetched=stored(OTHER), request_id=ID), {ID: [stored()]}, {}, (0, 1, 0, 0)),
        (ClientOutcome(JANE, fetched=stored(outcome="failed"), request_id=ID), {ID: [stored()]}, {}, (1, 0, 0, 0)),
        (
            ClientOutcome(POISON, fetched=stored(outcome="failed"), request_id=ID),
            {ID: [stored(outcome="failed")]},
            {ID: "x"},
            (0, 0, 0, 0),
        ),
        (ClientOutcome(POISON, told=(500, "no")), {ID: [stored(outcome="failed")]}, {}, (1, 0, 0, 0)),
    ],
)
def test_judge_counts_each_outcome(outcome: ClientOutcome, outputs: Any, dead: Any, counts: tuple[int, ...]) -> None:
    """Each mistake that a client or AWS shows is counted."""
    assert told(outcome, outputs, dead) == counts


def test_judge_counts_redeliveries_of_these_clients_only() -> None:
    """Redeliveries of an earlier fault do not count."""
    again = {OTHER}
    left = FinalState({ID: "a.jpg", OTHER: "of before.jpg"}, {ID: [stored()], OTHER: [stored(OTHER)]}, {}, {}, again)
    assert judge([ANSWERED], left, {ID, OTHER}, lambda _: None)["redelivered"] == 0
    again.add(ID)
    assert judge([ANSWERED], left, {ID, OTHER}, lambda _: None)["redelivered"] == 1


def test_accepted_tasks_are_those_that_sqs_took() -> None:
    """Refused sends, other queues and other calls do not count."""
    accepted_tasks = AcceptedTasks("x-req-queue")
    body = '{"QueueUrl": "http://aws/1/x-%s-queue", "MessageBody": "… \\"id\\": \\"%s\\""}'
    accepted_tasks.note(Call("sqs", "SendMessage", "/", (body % ("req", ID)).encode()), 503)
    accepted_tasks.note(Call("sqs", "SendMessage", "/", (body % ("resp", ID)).encode()), 200)
    accepted_tasks.note(Call("sqs", "DeleteMessage", "/", (body % ("req", ID)).encode()), 200)
    assert accepted_tasks.ids() == set()
    accepted_tasks.note(Call("sqs", "SendMessage", "/", (body % ("req", ID)).encode()), 200)
    assert accepted_tasks.ids() == {ID}
