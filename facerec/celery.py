"""The Celery application, and the web tier's task queue on it.

Importing this module reads no environment and opens nothing: the application configures itself at its first use, so
`celery -A facerec --help` works without settings. The task itself is in the package `tasks`. This module names that
package and does not import it: the web tier sends the task by its name.
"""

from functools import cached_property
from typing import Any

import click
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from facerec.celery_sqs.received_task import SHOWN_CHARACTERS
from facerec.echo import echo_error
from facerec.errors import ConfigurationError, Transient
from facerec.messages import TASK_NAME, RecognitionRequest
from facerec.settings import Settings

_PUBLISHERS = 8
"""Connections that all sending threads share; eight are enough, because SQS answers in a few milliseconds."""


class ConfigurationRefused(ConfigurationError, click.ClickException):
    """A `ConfigurationError` that Celery's command line, too, shows in one line, with exit status 1."""

    several_lines = True

    def show(self, file: Any = None) -> None:
        """Print it as the `facerec` command does."""
        echo_error(self.message, several_lines=True, file=file)


class FacerecCelery(Celery):
    """A Celery application that reads our settings at its first use."""

    events_cls = "facerec.celery_sqs.events.celery_events:Events"

    @cached_property
    def settings(self) -> Settings:
        """The settings of the environment, unless others are assigned before the first use."""
        try:
            return Settings.load()
        except ConfigurationError as exc:
            raise ConfigurationRefused(str(exc)) from exc

    def prepare_config(self, config: Any) -> Any:
        """Return the configuration, a hook of Celery: from our settings alone, never from a `celeryconfig` module."""
        del config
        context = click.get_current_context(silent=True)
        if context is not None and context.command_path.endswith("celery flower"):
            raise ConfigurationRefused("Flower's own command cannot read events from SQS; run `facerec flower`")
        return configuration(self.settings)


app = FacerecCelery("facerec")


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration. Pure."""
    return {
        # No credentials in a URL: they come from boto3's chain.
        "broker_url": "sqs://",
        "broker_transport": "facerec.celery_sqs.transport:Transport",
        "broker_transport_options": {
            "region": settings.aws.region,
            "endpoint_url": settings.endpoint_url,
            # A worker that drains or stops waits for the end of the long poll.
            "wait_time_seconds": 1,
            "visibility_timeout": settings.queue.visibility_timeout_seconds,
            "tasks": [TASK_NAME],
            "faces_queue": settings.faces_queue,
            "dead_letter_queues": settings.worker_queues,
            "max_receives": settings.queue.max_receives,
            # How often a worker looks for a free place; Celery's 1 s would throttle it.
            "polling_interval": 0.02,
            # No base64: Celery's JSON is ASCII, which SQS takes as it is. It is smaller so, and readable.
            "sqs_base64_encoding": False,
            "body_encoding": None,
        },
        "broker_pool_limit": _PUBLISHERS,
        "broker_connection_retry_on_startup": True,
        "include": ["tasks"],
        "task_default_queue": settings.request_queue,
        "task_queues": [Queue(name, routing_key=name) for name in settings.worker_queues],
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # A message is deleted after its task has succeeded, and in no other case.
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": False,
        "task_reject_on_worker_lost": True,
        # boto3 has already retried when it raises an error.
        "task_publish_retry": False,
        # Tasks run in threads. The engine's children use the cores, and their supervisor enforces the time limits.
        "worker_pool": "threads",
        "worker_concurrency": settings.worker.concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,
        "worker_send_task_events": settings.events.enabled,
        "task_send_sent_event": settings.events.enabled,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


class CeleryTaskQueue:
    """`TaskQueue` over Celery; safe for many threads, which share a few connections.

    A task is 0.8 kB on the wire, 3 kB with the longest file names; SQS takes 256 KiB.
    """

    def __init__(self, settings: Settings) -> None:
        self._app = FacerecCelery("facerec", set_as_current=False)
        self._app.settings = settings
        # Made here, without a connection: threads that use it for the first time at once would fail.
        _ = self._app.producer_pool

    def submit(self, request: RecognitionRequest) -> None:
        """Enqueue the task; on return it is durable. Raises as `SqsQueue`."""
        try:
            self._app.send_task(
                TASK_NAME,
                args=[request.model_dump(mode="json", exclude_none=True)],
                task_id=str(request.request_id),
                # Flower shows this as the arguments, beside the task's id, which is the request's id.
                argsrepr=request.filename[:SHOWN_CHARACTERS],
                kwargsrepr="",
            )
        except OperationalError as exc:  # kombu makes it of a `Transient` from our transport
            raise Transient(f"could not send a task: {exc}") from exc
