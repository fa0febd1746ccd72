"""The proxy that injects faults: transparent without rules, and each harm is what it says."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotocoreConnectionError

from facerec.aws.clients import Clients
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws
from tests.support.faults.faulty_aws import FaultyAws, faulty_aws
from tests.support.faults.rules import Harm, Rule, of

BROKEN = (HTTPClientError, BotocoreConnectionError)


@pytest.fixture
def proxy(emulator: EmulatedAws) -> Iterator[FaultyAws]:
    """A proxy in front of the session's emulator."""
    with faulty_aws(emulator.url) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultyAws, fresh: Settings) -> Clients:
    """Clients that go through it."""
    return Clients(fresh.changed(aws=fresh.aws.model_copy(update={"endpoint_url": proxy.url})))


def test_a_proxy_without_rules_changes_nothing(through: Clients, fresh: Settings, tmp_path: Path) -> None:
    """Large bodies both ways, and an answer without a body."""
    photo = os.urandom(3_000_000)
    through.s3.put_object(Bucket=fresh.input_bucket, Key="a/b", Body=photo)
    assert through.s3.get_object(Bucket=fresh.input_bucket, Key="a/b")["Body"].read() == photo
    assert through.s3.head_object(Bucket=fresh.input_bucket, Key="a/b")["ContentLength"] == len(photo)


def test_every_harm_is_what_it_says(fresh: Settings, proxy: FaultyAws) -> None:
    """Refused and reset before: not carried out. Reset after: carried out. Twice: two messages."""
    config = Config(retries={"total_max_attempts": 1})
    sqs: Any = boto3.client("sqs", endpoint_url=proxy.url, config=config)
    url = sqs.get_queue_url(QueueName=fresh.request_queue)["QueueUrl"]

    def depth_after(harm: Harm, call: Callable[[], Any]) -> int:
        proxy.rules = (Rule(harm, matches=of("sqs", "SendMessage", "DeleteMessage"), code="Throttling", status=400),)
        try:
            call()
        finally:
            proxy.rules = ()
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(value) for value in attributes.values())

    def send() -> None:
        sqs.send_message(QueueUrl=url, MessageBody="{}")

    def fails(with_what: Any) -> None:
        with pytest.raises(with_what):
            send()

    assert depth_after(Harm.REFUSE, lambda: fails(ClientError)) == 0
    assert depth_after(Harm.RESET_BEFORE, lambda: fails(BROKEN)) == 0
    assert depth_after(Harm.RESET_AFTER, lambda: fails(BROKEN)) == 1
    assert depth_after(Harm.TWICE, send) == 3
    receipt = sqs.receive_message(QueueUrl=url)["Messages"][0]["ReceiptHandle"]
    forget = {"QueueUrl": url, "ReceiptHandle": receipt}
    assert depth_after(Harm.SWALLOW, lambda: sqs.delete_message(**forget)) == 3
    assert depth_after(Harm.DELAY, lambda: sqs.delete_message(**forget)) == 2
