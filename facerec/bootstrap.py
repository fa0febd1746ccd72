"""Wires the ports to their adapters on AWS from the settings, for whoever needs them.

What one tier alone uses it wires itself: the worker its engine and the rest of its queues (`tasks.worker.Worker`),
the autoscaler its fleet (`autoscale.process`), and web processes, Flower and a few commands what nobody else needs.
Adapters are imported where they are made: each tier loads only what it uses, and the web tier runs without the engine.
"""

from typing import TYPE_CHECKING

from facerec.ports import ApiKeys, ObjectStore, ResultInbox, ResultPublisher, TaskQueue, TemplateStore, WorkerReports
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.aws.clients import Clients


def clients(settings: Settings) -> "Clients":
    """The process's AWS clients."""
    from facerec.aws.clients import shared_clients

    return shared_clients(settings)


def object_store(settings: Settings) -> ObjectStore:
    """Photos and results."""
    from facerec.aws.object_store import S3ObjectStore

    return S3ObjectStore(clients(settings))


def task_queue(settings: Settings) -> TaskQueue:
    """The web tier's way to the workers."""
    from facerec.celery import CeleryTaskQueue

    return CeleryTaskQueue(settings)


def result_publisher(settings: Settings) -> ResultPublisher:
    """The workers' way back."""
    from facerec.aws.sqs.results import SqsResultPublisher

    return SqsResultPublisher(clients(settings), settings.response_queue)


def result_inbox(settings: Settings, queue: str) -> ResultInbox:
    """The reading end of one response queue."""
    from facerec.aws.sqs.results import SqsResultInbox

    return SqsResultInbox(clients(settings), queue)


def template_store(settings: Settings) -> TemplateStore:
    """The gallery's system of record."""
    from facerec.aws.dynamodb.templates import DynamoTemplateStore

    return DynamoTemplateStore(clients(settings), settings.templates_table)


def api_keys(settings: Settings) -> ApiKeys:
    """Who may use the web tier."""
    from facerec.aws.dynamodb.key_table import DynamoApiKeys

    return DynamoApiKeys(clients(settings), settings.keys_table)


def worker_reports(settings: Settings) -> WorkerReports:
    """Where workers report, and are asked to drain."""
    from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports

    return DynamoWorkerReports(clients(settings), settings.fleet_table)
