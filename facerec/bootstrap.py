"""Connects the ports that several tiers use to their adapters on AWS.

A tier connects the rest itself: the worker in `tasks.worker`, the autoscaler in `autoscale.process`. Each function
imports its adapter, so a tier loads only the adapters that it uses.
"""

import os
import secrets
import socket
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from facerec.fleet_records import QueueDepth
from facerec.ports import (
    AccessRecords,
    ApiKeys,
    Collections,
    DeviceResults,
    EnrolledPeople,
    FacesPublisher,
    FleetHistory,
    GalleryReaders,
    Jobs,
    ObjectStore,
    PersonRecords,
    ResultInbox,
    ResultPublisher,
    Sessions,
    TaskQueue,
    TemplateStore,
    UnknownPeople,
    WorkerReports,
)
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.aws.clients import Clients
    from facerec.gallery.erasure import Erasures


def clients(settings: Settings) -> "Clients":
    """The AWS clients of this process."""
    from facerec.aws.clients import shared_clients

    return shared_clients(settings)


def object_store(settings: Settings) -> ObjectStore:
    """Photos and results."""
    from facerec.aws.object_store import S3ObjectStore

    return S3ObjectStore(clients(settings))


def task_queue(settings: Settings) -> TaskQueue:
    """The request queue, for the web tier."""
    from facerec.celery import CeleryTaskQueue

    return CeleryTaskQueue(settings)


def result_publisher(settings: Settings) -> ResultPublisher:
    """The response queues, for workers."""
    from facerec.aws.sqs.results import SqsResultPublisher

    max_bytes = settings.queue.max_message_bytes
    return SqsResultPublisher(clients(settings), settings.response_queue, max_bytes=max_bytes)


def device_results(settings: Settings) -> DeviceResults:
    """The topics of devices, for what recognises their faces."""
    from facerec.aws.iot_data import IotDeviceResults

    return IotDeviceResults(clients(settings))


def faces_publisher(settings: Settings) -> FacesPublisher:
    """The faces queue, for the detection function."""
    from facerec.aws.sqs.results import SqsFacesPublisher

    return SqsFacesPublisher(clients(settings), settings.faces_queue)


def result_inbox(settings: Settings, queue: str) -> ResultInbox:
    """One response queue, for its web process."""
    from facerec.aws.sqs.results import SqsResultInbox

    return SqsResultInbox(clients(settings), queue)


def enrolled_people(settings: Settings) -> EnrolledPeople:
    """Who is enrolled, for the web tier, which has no numpy."""
    from facerec.aws.dynamodb.people import DynamoEnrolledPeople

    return DynamoEnrolledPeople(clients(settings), settings.templates_table)


def person_records(settings: Settings) -> PersonRecords:
    """What is kept of people beside their templates."""
    from facerec.aws.dynamodb.person_records import DynamoPersonRecords

    return DynamoPersonRecords(clients(settings), settings.people_table)


def access_records(settings: Settings) -> AccessRecords:
    """The access log."""
    from facerec.aws.dynamodb.accesses import DynamoAccessRecords

    return DynamoAccessRecords(clients(settings), settings.people_table, days=settings.retention.access_days)


def gallery_readers(settings: Settings) -> GalleryReaders:
    """The reports of what holds collections in memory or on a disk."""
    from facerec.aws.dynamodb.erasures import DynamoGalleryReaders

    return DynamoGalleryReaders(clients(settings), settings.people_table)


def erasures(settings: Settings) -> "Erasures":
    """The erasure of people, with every place that may have something of them."""
    from facerec.aws.dynamodb.erasures import DynamoErasureLedger
    from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterReader
    from facerec.aws.sqs.pending import SqsPendingMessages
    from facerec.gallery import erasure_steps as steps
    from facerec.gallery.erasure import Erasures

    shared, objects = clients(settings), object_store(settings)
    enrolled, people = enrolled_people(settings), person_records(settings)
    gallery_bucket = settings.gallery_bucket
    dead = {settings.dead_letter_queue, settings.faces_dead_letter_queue}
    return Erasures(
        DynamoErasureLedger(shared, settings.people_table),
        enrolled,
        people,
        steps.GalleryStep(enrolled=enrolled, people=people, objects=objects, gallery_bucket=gallery_bucket),
        steps.PhotosStep(enrolled=enrolled, objects=objects, gallery_bucket=gallery_bucket),
        (
            steps.ReadersStep(readers=gallery_readers(settings)),
            steps.ResultsStep(
                objects=objects,
                input_bucket=settings.input_bucket,
                output_bucket=settings.output_bucket,
                grace_seconds=settings.worker.task_time_limit_seconds,
                functions=settings.app_tier != "ec2",
            ),
            steps.JobsStep(
                jobs=jobs(settings),
                grace_seconds=settings.worker.task_time_limit_seconds,
                functions=settings.app_tier != "ec2",
            ),
            steps.LateSnapshotsStep(objects=objects, gallery_bucket=gallery_bucket),
            steps.DeadLettersStep(queues={name: SqsDeadLetterReader(shared, name) for name in sorted(dead)}),
            steps.QueuesStep(queues=SqsPendingMessages(shared, settings)),
        ),
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
    )


def unknown_people(settings: Settings) -> UnknownPeople:
    """What is kept of unknown people beside their templates."""
    from facerec.aws.dynamodb.unknown_people import DynamoUnknownPeople

    return DynamoUnknownPeople(clients(settings), settings.people_table)


def template_store(settings: Settings) -> TemplateStore:
    """The gallery's system of record."""
    from facerec.aws.dynamodb.templates import DynamoTemplateStore

    return DynamoTemplateStore(clients(settings), settings.templates_table)


def collections(settings: Settings) -> Collections:
    """The collections that were created by name."""
    from facerec.aws.dynamodb.collections import DynamoCollections

    return DynamoCollections(clients(settings), settings.people_table)


def api_keys(settings: Settings) -> ApiKeys:
    """The API keys of the web tier."""
    from facerec.aws.dynamodb.api_keys import DynamoApiKeys

    return DynamoApiKeys(clients(settings), settings.keys_table)


def sessions(settings: Settings) -> Sessions:
    """The sessions of the pages."""
    from facerec.aws.dynamodb.sessions import DynamoSessions

    return DynamoSessions(clients(settings), settings.people_table)


def jobs(settings: Settings) -> Jobs:
    """Jobs and their files."""
    from facerec.aws.dynamodb.jobs import DynamoJobs

    return DynamoJobs(clients(settings), settings.jobs_table)


def worker_reports(settings: Settings) -> WorkerReports:
    """The reports of workers, and the orders to drain."""
    from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports

    return DynamoWorkerReports(clients(settings), settings.fleet_table)


def fleet_history(settings: Settings) -> FleetHistory:
    """What the autoscaler has recorded."""
    from facerec.aws.dynamodb.fleet_history import DynamoFleetHistory

    return DynamoFleetHistory(clients(settings), settings.fleet_table)


def queue_depth(settings: Settings) -> Callable[[], QueueDepth]:
    """How much waits in the queues that workers take from, read at each call."""
    from facerec.aws.sqs.depth import read_depth, total
    from facerec.aws.sqs.queue import SqsQueue

    @cache
    def queues() -> list[SqsQueue]:
        return [SqsQueue(clients(settings).sqs, name) for name in settings.worker_queues]

    return lambda: total([read_depth(queue) for queue in queues()])
