"""The cost of Flower's events for a worker: it drains the same backlog with events off and on, in turns.

    python -m benchmarks.events --rounds 6

Each turn starts one worker as an operator does, and counts CPU time after the first `--warm` results.

- `worker_cpu_ms`: CPU time of the whole worker per task; `process_cpu_ms`: without its engines, where events are made;
- `difference_percent`: the median over pairs of turns; other work on the machine may change a pair by more than events
  cost, in either direction;
- `sends_per_task`: messages of events, as the queue counts them; nothing reads them meanwhile;
- `events_cpu_ms`: the same measured alone: CPU time to make and send the events of a successful task, ten tasks in a
  message; `events_percent`: its share of the worker's CPU time.

The last line is one JSON object. The exit status is 1 if `events_percent` reaches 5 %, or if three of four pairs differ
by more than 5 % (`difference_lower_quartile_percent`). It is also 1 if nothing was compared: turns with events sent
none, or turns without sent some.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.backlog import Backlog
from benchmarks.roundtrip import workload
from facerec.aws.clients import Clients
from facerec.celery import FacerecCelery
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from tests.support.local_system import LocalSystem
from tests.support.measurements.summaries import Turn, events_cost
from tests.support.processes import CHECKOUT, cpu_seconds, descendants

_STALLED_SECONDS = 120
_ENABLED = "FACEREC_EVENTS__ENABLED"
_TASKS_ALONE, _TASKS_IN_A_MESSAGE = 200, 10


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="backlog of each turn")
    parser.add_argument("--warm", type=int, default=60, help="first results of each backlog, which do not count")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of turns")
    parser.add_argument(
        "--images", type=Path, default=CHECKOUT / "examples", help="folder of photos, as for benchmarks.roundtrip"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facerec-events-")))
        people, photos = workload(options.images, folder / "people")
        # A day, so that no counted message expires.
        environ = {"FACEREC_REPLY_STYLE": "name", "FACEREC_EVENTS__RETENTION_SECONDS": "86400"}
        system = stack.enter_context(LocalSystem(folder / "state", workers=0, environ=environ))
        system.run("enrol", "--folder", str(people))
        os.environ.update({k: v for k, v in system.environ.items() if k.startswith(("AWS_", "FACEREC_"))})
        os.environ[_ENABLED] = "false"  # this process stands for the web tier, which is not measured here
        backlog = Backlog(Settings.load(), photos, f"{Settings.load().response_queue}-bench")
        turns: dict[str, list[Turn]] = {"false": [], "true": []}
        for number in range(options.rounds):
            # The side that begins alternates, because other work on the machine may drift.
            for enabled in ("false", "true") if number % 2 else ("true", "false"):
                turns[enabled].append(_turn(system, backlog, options.requests, options.warm, enabled))
                print(f"round {number + 1}: events {enabled} {turns[enabled][-1]}", file=sys.stderr)
        alone = _alone(backlog.settings)
    summary = events_cost(turns["false"], turns["true"], alone)
    print(json.dumps(summary))
    sys.exit(0 if summary["passed"] else 1)


def _turn(system: LocalSystem, backlog: Backlog, requests: int, warm: int, enabled: str) -> Turn:
    [emulator] = descendants(system.pid, "facerec.local.ministack_server")
    queued = _events(backlog.settings)
    backlog.fill(requests)
    with system.worker({_ENABLED: enabled}) as pid:
        done = _collect(backlog, 0, warm)
        began = _used(pid), cpu_seconds(emulator)
        _collect(backlog, done, requests)
        (whole, process), emulated = _used(pid), cpu_seconds(emulator)
    per_task = 1000 / (requests - done)
    return Turn(
        worker_cpu_ms=(whole - began[0][0]) * per_task,
        process_cpu_ms=(process - began[0][1]) * per_task,
        emulator_cpu_ms=(emulated - began[1]) * per_task,
        sends_per_task=(_events(backlog.settings) - queued) / requests,
    )


def _alone(settings: Settings) -> float:
    """Return the CPU milliseconds of one task's events, measured alone in this process."""
    app = FacerecCelery("facerec", set_as_current=False)
    app.settings = settings
    events: Any = app.events  # the stubs know Celery's own
    events.queue().send("warm")
    dispatcher = events.Dispatcher(hostname="celery@bench")
    began = time.process_time()
    for number in range(_TASKS_ALONE):
        ident = str(uuid4())
        dispatcher.send(
            "task-received", uuid=ident, name=TASK_NAME, args="photo.jpg", kwargs="", root_id=ident, retries=0, eta=None
        )
        dispatcher.send("task-started", uuid=ident)
        dispatcher.send("task-succeeded", uuid=ident, result="'match'", runtime=0.5)
        if number % _TASKS_IN_A_MESSAGE == _TASKS_IN_A_MESSAGE - 1:
            time.sleep(settings.events.window_seconds)
    events.outbox.close(60)
    return (time.process_time() - began) * 1000 / _TASKS_ALONE


def _used(worker: int) -> tuple[float, float]:
    """The CPU seconds of a worker with its engines, and of its own process alone."""
    whole = cpu_seconds(worker)
    return whole, whole - cpu_seconds(*descendants(worker))


def _collect(backlog: Backlog, done: int, until: int) -> int:
    """Take results until there are at least so many; returns how many there are."""
    moved = time.monotonic()
    while done < until:
        came, _ = backlog.collect()
        done += came
        moved = time.monotonic() if came else moved
        if time.monotonic() - moved > _STALLED_SECONDS:
            raise RuntimeError(f"{until - done} results are missing")
    return done


def _events(settings: Settings) -> int:
    """How many messages wait for Flower."""
    sqs = Clients(settings).sqs
    url = sqs.get_queue_url(QueueName=settings.events_queue)["QueueUrl"]
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"])


if __name__ == "__main__":
    main()
