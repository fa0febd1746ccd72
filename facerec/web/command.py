"""`facerec web`: the web tier, in one process or in several."""

import os
import socket
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import click

from facerec.background import on_stop_signals
from facerec.echo import echo
from facerec.settings import Settings


@click.command("web")
@click.option("--listener", type=int, hidden=True, help="Descriptor of the bound socket, in a process of several.")
@click.option("--response-queue", hidden=True, help="The process's own response queue, in a process of several.")
def command(listener: int | None, response_queue: str | None) -> None:
    """Take uploads over HTTP until SIGTERM or Ctrl-C, then answer the waiting uploads and end.

    Clients need an API key (`facerec keys`), unless FACEREC_WEB__AUTH=open. Where strangers reach the port, put nginx
    in front (deploy/nginx, docs/bad-clients.md).

    \b
    Examples:
      facerec web
      FACEREC_WEB__AUTH=open facerec web
      FACEREC_WEB__HOST=0.0.0.0 FACEREC_WEB__PROCESSES=2 facerec web
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.observability.logs import configure_logging

    settings = Settings.load()
    configure_logging(settings.log, process="web" if response_queue is None else f"web-{response_queue[-12:]}")
    if listener is not None and response_queue is not None:
        _run_child(settings, socket.socket(fileno=listener), response_queue)
        return
    bound = _bind(settings)
    if settings.web.processes == 1:
        _run_single(settings, bound)
    else:
        _run_parent(settings, bound)


def _bind(settings: Settings) -> socket.socket:
    from facerec.errors import ConfigurationError
    from facerec.web.server import bind

    try:
        return bind(settings.web.host, settings.web.port)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot listen on {settings.web.host} port {settings.web.port} ({os.strerror(exc.errno or 0)}): "
            "choose others with FACEREC_WEB__HOST and FACEREC_WEB__PORT"
        ) from exc


def _announce(settings: Settings, listener: socket.socket) -> None:
    import structlog

    from facerec.settings.values import on_loopback
    from facerec.web.server import address_of

    log = structlog.get_logger(__name__)
    log.info("web_starting", auth=settings.web.auth, rate_limit=settings.web.rate_limit or None)
    if not on_loopback(listener.getsockname()[0]):
        log.info("proxy_expected", advice="let clients reach this port only through nginx or a load balancer")
    if settings.web.auth == "open" and not on_loopback(listener.getsockname()[0]):
        log.warning(
            "open_to_everyone", advice="every client that reaches this address is served: set FACEREC_WEB__AUTH=keys"
        )
    echo(f"facerec web listens on {address_of(listener)}")
    sys.stdout.flush()


def _run_single(settings: Settings, listener: socket.socket) -> None:
    from facerec.web.process import WebProcess, await_resources, queue_check, start_checks

    await_resources(start_checks(settings) | {"inbox": queue_check(settings, settings.response_queue)})
    process = WebProcess(settings, listener, settings.response_queue)
    on_stop_signals(process.stop)
    _announce(settings, listener)
    process.run()


def _run_child(settings: Settings, listener: socket.socket, response_queue: str) -> None:
    from facerec.web.metrics import DIRECTORY_VARIABLE
    from facerec.web.process import WebProcess

    process = WebProcess(settings, listener, response_queue, Path(os.environ[DIRECTORY_VARIABLE]))
    on_stop_signals(process.stop)
    process.run()


def _run_parent(settings: Settings, listener: socket.socket) -> None:
    from facerec import bootstrap
    from facerec.aws.sqs.response_queues import ResponseQueues
    from facerec.processes.children import Command
    from facerec.web.metrics import DIRECTORY_VARIABLE, forget_process
    from facerec.web.process import await_resources, start_checks
    from facerec.web.supervisor import WebProcesses

    def child(queue: str) -> Command:
        argv = ("web", "--listener", str(listener.fileno()), "--response-queue", queue)
        return Command(
            f"web-{queue[-12:]}",
            (sys.executable, "-m", "facerec.cli", *argv),
            {**os.environ, DIRECTORY_VARIABLE: metrics},
            pass_fds=(listener.fileno(),),
        )

    await_resources(start_checks(settings))
    queues = ResponseQueues(
        bootstrap.clients(settings), settings.response_queue, retention_seconds=settings.web.wait_seconds
    )
    stopping = threading.Event()
    on_stop_signals(stopping.set)
    _announce(settings, listener)
    owner = f"{socket.gethostname()}:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="facerec-web-metrics-") as metrics:
        forget = partial(forget_process, Path(metrics))
        WebProcesses(settings, queues, child, owner=owner, forget=forget).run(stopping)


@click.command("openapi")
def openapi() -> None:
    """Print the OpenAPI document of /api/v1, as the web tier serves it at /api/v1/openapi.json."""
    from facerec.echo import echo_json
    from facerec.web.process import described_app

    echo_json(described_app(Settings()).api_doc)
