"""`facerec flower`: workers, tasks and queues in a browser, with Flower's options from our settings."""

import asyncio
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import click
import structlog

from facerec.background import on_stop_signals
from facerec.echo import echo
from facerec.errors import ConfigurationError
from facerec.private_files import others_may_write
from facerec.settings import Settings
from facerec.settings.tiers import FlowerSettings
from facerec.settings.values import on_loopback

log = structlog.get_logger(__name__)
_PASSWORD_BYTES = 15
_SAVE_SECONDS = 60
_FORGET_SECONDS = 600
"""How long a worker is shown as offline and counted in the metrics."""


@click.command("flower")
def command() -> None:
    """Show workers, tasks and queues in a browser with Flower, until it is stopped.

    /workers, /tasks and /broker for people, /api/… and /metrics for programs, all behind one user and password; where
    FACEREC_FLOWER__PASSWORD is not set, a password is made and printed here. Run exactly one: a second one would take
    half of the events. Flower gives no orders to workers, because SQS has no broadcast.

    \b
    Examples:
      facerec flower
      FACEREC_FLOWER__PORT=8080 FACEREC_FLOWER__PASSWORD=$(cat password) facerec flower
      FACEREC_FLOWER__DATABASE=/var/lib/facerec/flower/tasks facerec flower
      curl -u facerec:$PASSWORD http://127.0.0.1:5555/api/queues/length
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from flower.options import options

    from facerec.aws.clients import shared_clients
    from facerec.aws.sqs.queue import check_queue
    from facerec.flower.application import FlowerApplication
    from facerec.observability.logs import configure_logging

    settings = Settings.load()
    flower = settings.flower
    configure_logging(settings.log, process="flower")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    check_queue(shared_clients(settings), settings.events_queue)
    # This variable would open the API to every page in the operator's browser; there is no option for it.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    password = configure(options, flower)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # Flower runs on it
    application = FlowerApplication(settings, options)
    try:
        port = application.start_http_server()
    except OSError as exc:
        raise ConfigurationError(
            f"cannot listen on {flower.host} port {flower.port}: {exc.strerror}; "
            "choose another with FACEREC_FLOWER__PORT"
        ) from exc
    _announce(settings, port, password)

    def stop() -> None:
        loop.call_soon_threadsafe(application.stop)

    on_stop_signals(stop)
    application.start()
    log.info("flower_stopped")


def configure(options: Any, flower: FlowerSettings) -> str | None:
    """Set Flower's options; returns the password if it was made here. Raises `ConfigurationError`."""
    made = None
    options.basic_auth = []
    if flower.auth == "basic":
        made = None if flower.password else secrets.token_urlsafe(_PASSWORD_BYTES)
        password = flower.password.get_secret_value() if flower.password else made
        if not str(password).isascii():
            raise ConfigurationError("FACEREC_FLOWER__PASSWORD may have ASCII characters only, because of Flower")
        options.basic_auth = [f"{flower.user}:{password}"]
    if flower.database is not None:
        _check_private(flower.database)
        options.db = str(flower.database)
    options.persistent = flower.database is not None
    options.state_save_interval = _SAVE_SECONDS * 1000
    options.address, options.port = flower.host, flower.port
    options.max_tasks = flower.max_tasks
    options.purge_offline_workers = _FORGET_SECONDS
    options.tasks_columns = "uuid,state,args,result,received,started,runtime,worker"
    options.read_only = True
    return made


def _check_private(database: Path) -> None:
    """Refuse a database that others may write: it is a pickle, and reading a pickle can run its code."""
    os.umask(0o077)  # also for the files that Flower writes
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # dbm's backends append to the name.
        found = [database.parent, *database.parent.glob(f"{database.name}*")]
        foreign = [path for path in found if others_may_write(path.stat())]
    except OSError as exc:
        raise ConfigurationError(f"cannot use {database} for Flower's tasks: {exc.strerror}") from exc
    if foreign:
        raise ConfigurationError(
            f"others may write {foreign[0]}, and so run code as Flower: make it yours alone (`chmod go-w`), "
            "or choose another FACEREC_FLOWER__DATABASE"
        )


def _announce(settings: Settings, port: int, password: str | None) -> None:
    flower = settings.flower
    host = f"[{flower.host}]" if ":" in flower.host else flower.host
    url = f"http://{host}:{port}"
    echo(f"Flower on {url}" + (f", user {flower.user}" if flower.auth == "basic" else ", without a password"))
    if password is not None:
        echo(f"password {password} (of this run; FACEREC_FLOWER__PASSWORD sets one)")
    if not on_loopback(flower.host):
        log.warning(
            "flower_without_tls", host=flower.host, hint="passwords cross the network in the clear: put TLS in front"
        )
    if not settings.events.enabled:
        log.warning("events_disabled", hint="FACEREC_EVENTS__ENABLED is off here: is it on for the workers?")
    log.info("flower_ready", url=url, queue=settings.events_queue)
