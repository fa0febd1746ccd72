"""The SQS client that all of the transport's channels of one process share."""

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from facerec.aws.clients import USER_AGENT
from facerec.aws.quick_calls import QuickSqs

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_lock = threading.Lock()


@dataclass(frozen=True)
class BrokerClient:
    """Stands for `Clients` where only SQS is called."""

    sqs: "SQSClient"


def broker_client(region: str, endpoint_url: str | None) -> "SQSClient":
    """With short timeouts, since some calls are made on the event loop."""
    with _lock:  # two threads must not make one each
        return _cached(region, endpoint_url)


@functools.lru_cache(maxsize=4)
def _cached(region: str, endpoint_url: str | None) -> "SQSClient":
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        user_agent=USER_AGENT,
    )
    session = boto3.Session(region_name=region)
    client: Any = QuickSqs(session.client("sqs", endpoint_url=endpoint_url, config=config), session)
    return client  # type: ignore[no-any-return]  # it stands for boto3's
