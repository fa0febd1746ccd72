"""What a worker says at its start of a queue that is not as the settings say."""

from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import queue_differences
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import NameSettings, QueueSettings


def test_a_provisioned_queue_does_not_differ(fresh: Settings) -> None:
    """Nothing is said."""
    assert queue_differences(Clients(fresh), fresh) == []


def test_faces_queue_is_compared_if_workers_take_from_it(fresh: Settings) -> None:
    """Provisioning sets its visibility timeout for the functions; a worker asks for its own with each receive."""
    with_edge = fresh.changed(edge=EdgeSettings(enabled=True))
    assert queue_differences(Clients(fresh), with_edge) == []
    sqs: Any = Clients(fresh).sqs
    url = sqs.get_queue_url(QueueName=fresh.faces_queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    (difference,) = queue_differences(Clients(fresh), with_edge)
    assert difference.startswith(f"{fresh.faces_queue}: its visibility timeout is 1 s")
    assert queue_differences(Clients(fresh), fresh) == []


def test_each_difference_is_told(fresh: Settings) -> None:
    """With both values, since either may be the wrong one."""
    names = NameSettings(request_queue=fresh.request_queue, dead_letter_queue="elsewhere")
    other = fresh.changed(queue=QueueSettings(visibility_timeout_seconds=60, max_receives=3), names=names)
    timeout, target, receives = queue_differences(Clients(fresh), other)
    assert "is 30 s" in timeout
    assert "(60)" in timeout
    assert f"{fresh.dead_letter_queue!r}, not to 'elsewhere'" in target
    assert "delivers 4 times" in receives


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("MaximumMessageSize", "1024", "size limit is 1024 bytes, not FACEREC_QUEUE__MAX_MESSAGE_BYTES (253952)"),
        ("DelaySeconds", "900", "delay is 900 s, not its usual value (0)"),
    ],
)
def test_response_queue_with_another_attribute_is_told(
    fresh: Settings, attribute: str, value: str, sentence: str
) -> None:
    """It would refuse results, or keep them back."""
    sqs: Any = Clients(fresh).sqs
    url = sqs.get_queue_url(QueueName=fresh.response_queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={attribute: value})
    assert queue_differences(Clients(fresh), fresh) == [f"{fresh.response_queue}: its {sentence}"]


def test_missing_response_queue_is_told(fresh: Settings) -> None:
    """It ends no worker: each web process may have its own."""
    sqs: Any = Clients(fresh).sqs
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=fresh.response_queue)["QueueUrl"])
    (difference,) = queue_differences(Clients(fresh), fresh)
    assert f"there is no queue {fresh.response_queue!r}" in difference


def test_a_queue_without_a_redrive_policy_is_told(fresh: Settings) -> None:
    """Its poison would go round for ever."""
    sqs: Any = Clients(fresh).sqs
    url = sqs.get_queue_url(QueueName=fresh.request_queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    (difference,) = queue_differences(Clients(fresh), fresh)
    assert "no redrive policy" in difference
