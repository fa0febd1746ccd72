"""`facerec flower` from start to end: Flower's options from our settings, its password, its server."""

import asyncio
import logging
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from flower.options import options

from facerec.aws.clients import shared_clients
from facerec.aws.sqs.queue import check_queue
from facerec.background import on_stop_signals
from facerec.errors import ConfigurationError
from facerec.flower.application import FlowerApplication
from facerec.observability.logs import configure_logging
from facerec.settings import Settings
from facerec.settings.tiers import FlowerSettings
from facerec.settings.values import on_loopback

log = structlog.get_logger(__name__)

_PASSWORD_BYTES = 15
_SAVE_SECONDS = 60
_FORGET_SECONDS = 600
"""How long a worker is shown as offline, and counted in the metrics: instances come and go."""


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `say` gets the address, and a password that was made here.

    Raises `FacerecError` where the queue, the port or the database cannot be used.
    """
    configure_logging(settings.log, process="flower")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    check_queue(shared_clients(settings), settings.events_queue)
    # It would open the API to every page in the operator's browser; there is no option for it.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    password = configure(options, settings.flower)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the one on which Flower runs
    application = FlowerApplication(settings, options)
    try:
        port = application.start_http_server()
    except OSError as exc:
        raise ConfigurationError(
            f"cannot listen on {settings.flower.host} port {settings.flower.port}: {exc.strerror}; "
            "choose another with FACEREC_FLOWER__PORT"
        ) from exc
    host = f"[{settings.flower.host}]" if ":" in settings.flower.host else settings.flower.host
    _announce(settings, f"http://{host}:{port}", password, say)

    def stop() -> None:
        loop.call_soon_threadsafe(application.stop)

    on_stop_signals(stop)
    application.start()
    log.info("flower_stopped")


def configure(chosen: Any, flower: FlowerSettings) -> str | None:
    """Set Flower's options; returns the password if it was made here. Raises `ConfigurationError`."""
    made = None
    chosen.basic_auth = []
    if flower.auth == "basic":
        made = None if flower.password else secrets.token_urlsafe(_PASSWORD_BYTES)
        password = flower.password.get_secret_value() if flower.password else made
        if not str(password).isascii():
            raise ConfigurationError(
                "FACEREC_FLOWER__PASSWORD may have ASCII characters only: Flower compares no others"
            )
        chosen.basic_auth = [f"{flower.user}:{password}"]
    if flower.database is not None:
        _check_private(flower.database)
        chosen.db = str(flower.database)
    chosen.persistent = flower.database is not None
    chosen.state_save_interval = _SAVE_SECONDS * 1000
    chosen.address, chosen.port = flower.host, flower.port
    chosen.max_tasks = flower.max_tasks
    chosen.purge_offline_workers = _FORGET_SECONDS
    chosen.tasks_columns = "uuid,state,args,result,received,started,runtime,worker"
    chosen.read_only = True
    return made


def _check_private(database: Path) -> None:
    """Refuse a file that others may write: to read a pickle is to run what is in it."""
    os.umask(0o077)  # for what Flower writes, too
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # dbm's backends append to the name.
        found = [database.parent, *database.parent.glob(f"{database.name}*")]
        strangers = [path for path in found if _foreign(path.stat())]
    except OSError as exc:
        raise ConfigurationError(f"cannot use {database} for Flower's tasks: {exc.strerror}") from exc
    if strangers:
        raise ConfigurationError(
            f"others may write {strangers[0]}, and so run code as Flower: make it yours alone (`chmod go-w`), "
            "or choose another FACEREC_FLOWER__DATABASE"
        )


def _foreign(status: os.stat_result) -> bool:
    others_write = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return others_write or status.st_uid != os.geteuid()


def _announce(settings: Settings, url: str, password: str | None, say: Callable[[str], None]) -> None:
    flower = settings.flower
    say(f"Flower on {url}" + (f", user {flower.user}" if flower.auth == "basic" else ", without a password"))
    if password is not None:
        say(f"password {password} (of this run; FACEREC_FLOWER__PASSWORD sets one)")
    if not on_loopback(flower.host):
        log.warning(
            "flower_without_tls", host=flower.host, hint="passwords cross the network in the clear: put TLS before"
        )
    if not settings.events.enabled:
        log.warning("events_disabled", hint="FACEREC_EVENTS__ENABLED is off here: is it on where workers run?")
    log.info("flower_ready", url=url, queue=settings.events_queue)
