"""Lambda's service for one function of a local system: its instances, its event source mapping and its URL.

The process is `python -m facerec.local.functions.service detection|recognition --emulator PATH --logs FOLDER`, with the
environment of the system. It logs `function_ready` when the function has been initialised.
"""

import os
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click
import structlog
from botocore.credentials import ReadOnlyCredentials
from werkzeug.serving import WSGIRequestHandler, make_server

from facerec import bootstrap
from facerec.aws.clients import aws_session
from facerec.aws.sqs.queue import SqsQueue
from facerec.background import BackgroundThread, on_stop_signals
from facerec.echo import echo_error
from facerec.errors import ConfigurationError, FacerecError
from facerec.local.functions.instance import Failure, Function, FunctionFailed
from facerec.local.functions.poller import SqsPoller
from facerec.local.functions.pool import FunctionPool
from facerec.local.functions.url import FunctionUrl
from facerec.observability.logs import configure_logging
from facerec.processes.addresses import LOOPBACK
from facerec.provision.iam_statements import HALVES, Half, function_name
from facerec.provision.serverless_stack import function_environment
from facerec.settings import ENV_PREFIX, Settings

log = structlog.get_logger(__name__)

_FINISH_SECONDS = 1.5
"""For running invocations, when the service is asked to end."""
_LOOK_SECONDS = 1.0
_NO_MESSAGES = b'{"Records": []}'
"""An event that initialises a function and gives it nothing to do."""


def function_of(settings: Settings, half: Half, environ: Mapping[str, str]) -> Function:
    """Return a function as it runs here: in this interpreter, with the settings that it has on AWS.

    `environ` brings the rest: credentials, the emulated AWS and the path. The model and the downloads are this user's.
    """
    serverless = settings.serverless
    own = {name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)}
    here = {
        "FACEREC_AWS__ENDPOINT_URL": settings.endpoint_url or "",
        "FACEREC_MODEL__CACHE_DIR": str(settings.model.cache_dir),
        "FACEREC_MODEL__DIR": str(settings.model.dir),
    }
    return Function(
        name=function_name(settings, half),
        argv=(sys.executable, "-m", "awslambdaric", f"facerec.serverless.{half}.handler"),
        environ=own | function_environment(settings) | here,
        memory_mb=serverless.detection_memory_mb if half == "detection" else serverless.recognition_memory_mb,
        timeout_seconds=serverless.timeout_seconds,
        region=settings.aws.region,
    )


@dataclass(frozen=True, slots=True)
class Url:
    """A function URL on a loopback port; without credentials it is open."""

    port: int
    credentials: ReadOnlyCredentials | None


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the function does."""


class FunctionService(AbstractContextManager["FunctionService"]):
    """Runs a function with up to `concurrency` instances for the messages of a queue, and for its URL if it has one.

    Entering initialises an instance; it raises `FunctionFailed` if the function cannot be.
    """

    def __init__(
        self,
        function: Function,
        queue: SqsQueue,
        *,
        emulator: Path,
        logs: Path,
        concurrency: int,
        batch_size: int,
        url: Url | None = None,
    ) -> None:
        region = function.region
        self.pool = FunctionPool(function, concurrency, emulator, logs, first_event=_NO_MESSAGES)
        self._poller = SqsPoller(queue, self.pool, batch_size=batch_size, concurrency=concurrency, region=region)
        self._server = None
        if url is not None:
            app = FunctionUrl(self.pool, credentials=url.credentials, region=region)
            self._server = make_server(LOOPBACK, url.port, app, threaded=True, request_handler=_Quiet)
            self._serving = BackgroundThread("function-url", lambda _: self._serve())

    def __enter__(self) -> Self:
        """Initialise the function, then take messages and requests."""
        try:
            self._initialise()
        except BaseException:
            self.pool.stop()
            raise
        self._poller.start()
        if self._server is not None:
            self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more, let running invocations finish for a moment, and end the instances."""
        self._poller.stop(0)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self.pool.stop(_FINISH_SECONDS)
        self._poller.stop(_FINISH_SECONDS)

    def serve_until(self, stopping: threading.Event) -> None:
        """Return when the event is set; raises `FacerecError` when no more instances can be started."""
        while not stopping.wait(_LOOK_SECONDS):
            if not self.pool.can_start:
                raise FacerecError("the process that ends orphans was killed: no instance can be started")

    def _initialise(self) -> None:
        for last in (False, False, True):
            try:
                self.pool.invoke(_NO_MESSAGES)
            except FunctionFailed as exc:
                if last or exc.failure is not Failure.TIMEOUT:  # a busy machine takes long
                    raise
            else:
                return

    def _serve(self) -> None:
        if self._server is not None:
            self._server.serve_forever(poll_interval=0.1)


@click.command()
@click.argument("half", type=click.Choice(HALVES))
@click.option("--emulator", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--url-port", type=int)
def main(half: Half, emulator: Path, logs: Path, url_port: int | None) -> None:
    """Serve a function until SIGTERM."""
    settings = Settings.load()
    configure_logging(settings.log, process=f"face-{half}")
    serverless, clients = settings.serverless, bootstrap.clients(settings)
    queue = settings.request_queue if half == "detection" else settings.faces_queue
    url = None
    if url_port is not None:
        url = Url(url_port, None if serverless.url_auth == "open" else _credentials(settings))
    stopping = threading.Event()
    on_stop_signals(stopping.set)
    with FunctionService(
        function_of(settings, half, os.environ),
        SqsQueue(clients.sqs, queue),
        emulator=emulator,
        logs=logs,
        concurrency=serverless.max_concurrency,
        batch_size=serverless.batch_size,
        url=url,
    ) as service:
        log.info("function_ready", half=half, queue=queue)
        service.serve_until(stopping)


def _credentials(settings: Settings) -> ReadOnlyCredentials:
    found = aws_session(settings.aws.region).get_credentials()
    if found is None:
        raise ConfigurationError("no AWS credentials found: a function URL cannot check signatures")
    return found.get_frozen_credentials()


if __name__ == "__main__":
    try:
        main()
    except FacerecError as exc:
        echo_error(str(exc))
        sys.exit(1)
