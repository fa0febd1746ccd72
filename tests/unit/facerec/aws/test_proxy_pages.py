"""Something else answers for AWS, such as a proxy with its page: no adapter takes that for a reading.

No socket is opened: botocore's hook gives the answers.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from autoscale.aws.backlog import SqsBacklog
from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb.api_keys import DynamoApiKeys
from facerec.aws.dynamodb.fleet_history import DynamoFleetHistory
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.aws.object_store import S3ObjectStore
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterReader
from facerec.aws.sqs.queue import SqsQueue, check_queue, made_at, queue_differences
from facerec.aws.sqs.response_queues import ResponseQueues
from facerec.errors import Transient
from facerec.provision.provisioning import provision
from facerec.settings import Settings

PAGES = [
    (200, b"<html>Sign in</html>"),
    (200, b"<html><body/></html>"),
    (200, b"{}"),
    (200, b""),
    (200, b"null"),
    (200, b"\xff"),
    (302, b"<html>Sign in</html>"),
    (403, b"<html>Forbidden</html>"),
    (404, b"<html>Not found</html>"),
    (503, b"<Error><Code></Code></Error>"),
]


class _Raw(BytesIO):
    """A body as urllib3 hands it over."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        """All of it."""
        yield self.read()


class _Proxy:
    """Answers every call with the same page."""

    page = PAGES[0]

    def __call__(self, request: Any, **_: Any) -> Any:
        """As botocore's hook."""
        status, body = self.page
        return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body))


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Clients, _Proxy]]:
    """Clients behind a proxy; made once, since boto3's take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        made, proxy = Clients(Settings()), _Proxy()
        made._config = made._config.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
        made._session.events.register("before-send", proxy)
        yield made, proxy


def _instances(clients: Clients) -> None:
    with translated("look at the instances"):
        clients.ec2.describe_instances()


def _look(clients: Clients) -> None:
    with SqsDeadLetterReader(clients, "q").look() as letters:
        list(letters)


READINGS: dict[str, Callable[[Clients], object]] = {
    "object": lambda clients: S3ObjectStore(clients).get("bucket", "key"),
    "stored object": lambda clients: S3ObjectStore(clients).put("bucket", "key", b"", "text/plain"),
    "head": lambda clients: S3ObjectStore(clients).describe("bucket", "key"),
    "existence": lambda clients: S3ObjectStore(clients).exists("bucket", "key"),
    "keys": lambda clients: S3ObjectStore(clients).keys("bucket"),
    "deletion": lambda clients: S3ObjectStore(clients).delete("bucket", "key"),
    "queue": lambda clients: check_queue(clients, "q"),
    "receive": lambda clients: SqsQueue(clients.sqs, "q").receive(wait_seconds=0),
    "queue's identity": lambda clients: made_at(clients, "q"),
    "queue's attributes": lambda clients: queue_differences(clients, Settings()),
    "depth": lambda clients: SqsBacklog(clients, "q").depth(),
    "dead letters": _look,
    "count of dead letters": lambda clients: SqsDeadLetterReader(clients, "q").count(),
    "own queue": lambda clients: ResponseQueues(clients, "q", retention_seconds=60).create("owner"),
    "own queues": lambda clients: ResponseQueues(clients, "q", retention_seconds=60).names(),
    "orphans": lambda clients: ResponseQueues(clients, "q", retention_seconds=60).reap(),
    "version": lambda clients: DynamoTemplateStore(clients, "table").version("default"),
    "templates": lambda clients: list(DynamoTemplateStore(clients, "table").templates("default")),
    "collections": lambda clients: DynamoTemplateStore(clients, "table").collections(),
    "API key": lambda clients: DynamoApiKeys(clients, "table").get("id"),
    "API keys": lambda clients: DynamoApiKeys(clients, "table").keys(),
    "history": lambda clients: DynamoFleetHistory(clients, "table").records(0),
    "instances": _instances,
    "provisioning": lambda clients: provision(clients, Settings()),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", READINGS)
def test_page_is_an_outage(clients: tuple[Clients, _Proxy], name: str, page: tuple[int, bytes]) -> None:
    """No empty queue, no empty table, no other object, no missing permission: the caller tries again later."""
    made, proxy = clients
    proxy.page = page
    with pytest.raises(Transient):
        READINGS[name](made)


def test_created_queue_is_not_looked_up(clients: tuple[Clients, _Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS may not find it for a second; an answer without its URL is no queue."""
    queue = SqsQueue(clients[0].sqs, "q")
    monkeypatch.setattr(clients[0].sqs, "create_queue", lambda **_: {"QueueUrl": "http://sqs/q"})
    queue.create({})
    assert queue.url == "http://sqs/q"
    monkeypatch.setattr(clients[0].sqs, "create_queue", lambda **_: {})
    with pytest.raises(Transient, match="URL of queue 'q'"):
        SqsQueue(clients[0].sqs, "q").create({})


def test_attribute_that_is_not_stated_is_an_outage(
    clients: tuple[Clients, _Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never counts as 0."""
    queue = SqsQueue(clients[0].sqs, "q")
    monkeypatch.setattr(clients[0].sqs, "get_queue_url", lambda **_: {"QueueUrl": "http://sqs/q"})
    monkeypatch.setattr(clients[0].sqs, "get_queue_attributes", lambda **_: {"Attributes": {"A": "1"}})
    assert queue.attributes("A") == {"A": "1"}
    with pytest.raises(Transient, match="has not stated B"):
        queue.attributes("A", "B")
