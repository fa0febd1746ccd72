"""`facerec worker`: the app tier's Celery worker."""

import socket
import sys

import click

from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings


@click.command("worker")
@click.option("--concurrency", type=click.IntRange(min=1), help="Tasks held at once  [FACEREC_WORKER__CONCURRENCY].")
@click.option(
    "--engines", type=click.IntRange(min=0), help="Engine processes, 0 for one per core  [FACEREC_WORKER__ENGINES]."
)
def command(concurrency: int | None, engines: int | None) -> None:
    """Recognise the photos of the request queue until the worker is stopped.

    After SIGTERM or Ctrl-C it finishes the tasks in progress and gives back the others; nothing is lost. This is the
    same worker as that of `celery -A facerec worker`.

    Each engine process is single-threaded. By default there is one for each core that this process may use: those of
    its affinity (`taskset`), limited by a container's CPU quota.

    \b
    Examples:
      facerec worker
      facerec worker --engines 2 --concurrency 32
      taskset -c 0,1 facerec worker
      FACEREC_ENGINE=onnxruntime FACEREC_LOG__LEVEL=debug facerec worker
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.celery import app

    settings = Settings.load()
    chosen = {"concurrency": concurrency, "engines": engines}
    worker = WorkerSettings(
        **settings.worker.model_dump() | {name: value for name, value in chosen.items() if value is not None}
    )
    app.settings = settings.changed(worker=worker)
    # Flower shows workers by this name; several instances of an emulated EC2 share one host.
    instance_id = settings.worker.instance_id
    process = app.Worker(quiet=True, hostname=f"{instance_id}@{socket.gethostname()}" if instance_id else None)
    process.start()
    sys.exit(process.exitcode)
