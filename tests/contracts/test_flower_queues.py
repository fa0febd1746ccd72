"""The queues that Flower shows, on both emulators."""

import asyncio
import uuid
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.response_queues import ResponseQueues
from facerec.flower.application import SqsBroker
from facerec.provision.provisioning import provision
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings


@pytest.mark.parametrize("kind", ["ministack", "moto"])
def test_broker_shows_every_queue(kind: str, request: pytest.FixtureRequest) -> None:
    """With those of web processes, and of faces if workers take them; an unreadable queue has an error, no counts."""
    clients: Clients = request.getfixturevalue(f"{kind}_clients")
    settings = Settings(prefix=f"test-{uuid.uuid4().hex[:12]}", edge=EdgeSettings(enabled=True))
    provision(clients, settings)
    owned = ResponseQueues(clients, settings.response_queue, retention_seconds=60).create("somebody")
    requests = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
    for _ in range(3):
        clients.sqs.send_message(QueueUrl=requests, MessageBody="x")
    clients.sqs.receive_message(QueueUrl=requests, MaxNumberOfMessages=1)
    clients.sqs.delete_queue(QueueUrl=clients.sqs.get_queue_url(QueueName=settings.dead_letter_queue)["QueueUrl"])

    found = asyncio.run(SqsBroker(clients, settings).queues(()))

    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in found}
    assert list(rows) == [
        settings.request_queue,
        settings.dead_letter_queue,
        settings.faces_queue,
        settings.faces_dead_letter_queue,
        settings.response_queue,
        owned,
        settings.events_queue,
    ]
    waiting = rows[settings.request_queue]
    assert (waiting["messages"], waiting["messages_ready"], waiting["messages_unacknowledged"]) == (3, 2, 1)
    gone = rows[settings.dead_letter_queue]
    assert gone["messages"] is None
    assert settings.dead_letter_queue in gone["error"]
