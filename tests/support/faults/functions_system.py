"""The functions on the proxied system: requests go onto the queue or to the URL, and results come off their queue.

Each instance is AWS's Runtime Interface Emulator. The pollers, which are Lambda's own, reach AWS without the proxy.
"""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from pydantic import AnyHttpUrl

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.celery_sqs.envelope import task_message
from facerec.local.functions.instance import Function
from facerec.local.functions.pool import FunctionPool
from facerec.local.functions.runtime_emulator import fetch_runtime_emulator
from facerec.local.functions.service import FunctionService, Url, function_of
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.object_keys import input_key
from facerec.processes.addresses import LOOPBACK, free_port, poll_until
from facerec.provision.iam_statements import HALVES, Half
from facerec.settings import Settings
from tests.support.faults.outcomes import held
from tests.support.faults.proxied_system import Processes, ProxiedSystem
from tests.support.processes import descendants

_BATCH = 10
_RUNTIME = "awslambdaric"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request on its way, and the name that is right for it."""

    request: RecognitionRequest
    content: bytes
    answer: str

    @property
    def id(self) -> str:
        """The request id."""
        return str(self.request.request_id)


@dataclass(frozen=True, slots=True)
class Answer:
    """A message of the response queue; `arrived_at` is when the queue got it, in seconds since the epoch."""

    arrived_at: float
    result: Mapping[str, Any]


class FunctionsSystem(ProxiedSystem):
    """Emulated AWS, proxy and both functions, each with `concurrency` instances; a context manager.

    `start_workers` adds workers, for mixed tiers. `handlers` are other handlers of the halves. With `package`, the
    functions run from this folder of packages, an unpacked zip archive, in the interpreter `python`.
    """

    def __init__(
        self,
        state: Path,
        *,
        concurrency: int = 2,
        environ: Mapping[str, str] | None = None,
        handlers: Mapping[Half, str] | None = None,
        workers: int = 1,
        package: Path | None = None,
        python: str = "python3.12",
        mqtt: bool = False,
    ) -> None:
        serverless = {"FACEREC_APP_TIER": "serverless", "FACEREC_SERVERLESS__URL_AUTH": "open"}
        super().__init__(state, Processes(workers=workers, environ=serverless | dict(environ or {})), mqtt=mqtt)
        self._concurrency = concurrency
        self._handlers = handlers or {}
        self._package, self._python = package, python
        self._started = ExitStack()
        self.services: dict[Half, FunctionService] = {}
        self.url_port = free_port()

    def __enter__(self) -> Self:
        """Start the emulated AWS, provision it, and make its environment this process's own."""
        super().__enter__()
        patch = self._started.enter_context(pytest.MonkeyPatch.context())
        for name, value in self.environ.items():
            patch.setenv(name, value)
        self.settings = Settings.load()
        self._sqs = self.aws("sqs")
        # Lambda's own calls: not through the proxy.
        direct = self.settings.aws.model_copy(update={"endpoint_url": AnyHttpUrl(self.aws("sqs").meta.endpoint_url)})
        self.clients = Clients(self.settings.changed(aws=direct))
        self.emulator_path = fetch_runtime_emulator(self.settings.model.cache_dir)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        try:
            self._started.close()
        finally:
            super().__exit__(kind, error, trace)

    def function(self, half: Half) -> Function:
        """A function as Lambda runs it: from bytecode, whatever this process's environment says."""
        environ = {name: value for name, value in self.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        function = function_of(self.settings, half, environ)
        python, *options, handler = function.argv
        if self._package is not None:
            python = self._python
            there = {"PYTHONPATH": str(self._package), "FACEREC_MODEL__DIR": str(self._package / "artefact")}
            function = replace(function, environ={**function.environ, **there})
        return replace(function, argv=(python, *options, self._handlers.get(half, handler)))

    def pool(self, half: Half, size: int = 1) -> FunctionPool:
        """Instances of a function that get only what they are invoked with; they end with the system."""
        pool = FunctionPool(self.function(half), size, self.emulator_path, self.state / "logs")
        self._started.callback(pool.stop)
        return pool

    def start_functions(self, *halves: Half) -> None:
        """Let the functions take messages, and the detection calls of its URL."""
        for half in halves or HALVES:
            queue = self.settings.request_queue if half == "detection" else self.settings.faces_queue
            service = FunctionService(
                self.function(half),
                SqsQueue(self.clients.sqs, queue),
                emulator=self.emulator_path,
                logs=self.state / "logs",
                concurrency=self._concurrency,
                batch_size=self.settings.serverless.batch_size,
                url=Url(self.url_port, None) if half == "detection" else None,
            )
            self.services[half] = self._started.enter_context(service)

    @property
    def function_url(self) -> str:
        """The address of the detection function's URL."""
        return f"http://{LOOPBACK}:{self.url_port}/"

    def runtimes(self, half: Half) -> list[int]:
        """The process ids of a function's instances, those of the Python processes."""
        return [pid for rie in self.services[half].pool.pids for pid in descendants(rie, _RUNTIME)]

    def request(self, filename: str, content: bytes, answer: str) -> Sent:
        """A request for a photo; nothing is sent yet."""
        request_id = uuid.uuid4()
        key = input_key(request_id, filename)
        request = RecognitionRequest(
            request_id=request_id,
            input=ObjectRef(bucket=self.settings.input_bucket, key=key, size=len(content)),
            filename=filename,
            reply_to=self.settings.response_queue,
            submitted_at=datetime.now(UTC),
        )
        return Sent(request, content, answer)

    def enqueue(self, requests: Sequence[Sent]) -> None:
        """Store the photos and send the tasks, as the web tier does."""
        s3, sqs = self.aws("s3"), self.aws("sqs")
        url = sqs.get_queue_url(QueueName=self.settings.request_queue)["QueueUrl"]
        for sent in requests:
            s3.put_object(Bucket=sent.request.input.bucket, Key=sent.request.input.key, Body=sent.content)
        for first in range(0, len(requests), _BATCH):
            entries = [
                {"Id": str(number), "MessageBody": task_message(sent.request)}
                for number, sent in enumerate(requests[first : first + _BATCH])
            ]
            sqs.send_message_batch(QueueUrl=url, Entries=entries)

    def answers(self, ids: Iterable[str], seconds: float, key: str = "request_id") -> dict[str, list[Answer]]:
        """Take results off the response queue, until each of these requests has one or the time is over.

        `key` is the field of the results that has the id.
        """
        wanted, found, deadline = set(ids), defaultdict(list), time.monotonic() + seconds
        while True:
            batch = self.receive(self.settings.response_queue)
            for message in batch:
                result = json.loads(message["Body"])
                found[result[key]].append(Answer(int(message["Attributes"]["SentTimestamp"]) / 1000, result))
            if not batch and (wanted <= found.keys() or time.monotonic() > deadline):
                return dict(found)

    def receive(self, queue: str, most: int = _BATCH, wait_seconds: int = 1) -> list[dict[str, Any]]:
        """Receive messages of a queue and delete them."""
        url = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        batch: list[dict[str, Any]] = self._sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait_seconds,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        for message in batch:
            self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return batch

    def dead_letters(self) -> dict[str, str | None]:
        """The reason of each dead letter of both queues, by its body; they stay there no longer."""
        found: dict[str, str | None] = {}
        for queue in (self.settings.dead_letter_queue, self.settings.faces_dead_letter_queue):
            while batch := self.receive(queue, wait_seconds=0):
                for message in batch:
                    reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue")
                    found[message["Body"]] = reason
        return found

    def left(self) -> int:
        """The messages in the request queue and the faces queue: waiting, in flight, delayed."""
        sqs = self.aws("sqs")
        queues = (self.settings.request_queue, self.settings.faces_queue)
        return sum(held(sqs, sqs.get_queue_url(QueueName=queue)["QueueUrl"]) for queue in queues)

    def left_when_idle(self, seconds: float = 10.0) -> int:
        """Wait up to this time for both queues to be empty; returns the messages that are left."""
        poll_until(lambda: self.left() == 0, seconds)
        return self.left()
