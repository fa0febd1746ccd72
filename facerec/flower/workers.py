"""What Flower knows of each worker, from its events alone: SQS has no broadcast by which a worker could be asked."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from celery import states
from celery.events.state import State
from flower.inspector import Inspector

from facerec.celery import TASK

_HELD = frozenset({states.RECEIVED, states.STARTED})


class Inspected:
    """In the place of Flower's `Inspector`: the same dictionaries, made from the events' state; nobody is asked."""

    inspect_methods: tuple[str, ...] = Inspector.inspect_methods

    def __init__(self, state: Callable[[], State], queue: str, broker: str) -> None:
        self._state = state
        self._queue = queue
        self._broker = broker

    def inspect(self, workername: str | None = None) -> "asyncio.Future[None]":
        """Nothing to be asked; done at once."""
        del workername
        done: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        done.set_result(None)
        return done

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        """By name, as a worker itself would answer, as far as events tell; raises nothing."""
        state: Any = self._state()
        held: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for task in list(state.tasks.data.values()):
            if task.worker is not None and task.state in _HELD:
                held[task.worker.hostname, task.state].append(_held(task))
        return {
            name: self._worker(worker) | {"active": held[name, states.STARTED], "reserved": held[name, states.RECEIVED]}
            for name, worker in list(state.workers.data.items())
        }

    def _worker(self, worker: Any) -> dict[str, Any]:
        queue = dict.fromkeys(("alias", "queue_arguments", "binding_arguments"))
        return {
            "stats": {
                "pid": worker.pid,
                "total": {TASK: worker.processed or 0},
                "broker": {"transport": "sqs", "hostname": self._broker},
                "clock": worker.clock,
                "pool": {
                    "online": worker.alive,
                    "heartbeat_every": f"{worker.freq} s",
                    "load_average": worker.loadavg,
                    "software": f"{worker.sw_ident} {worker.sw_ver} on {worker.sw_sys}",
                },
            },
            "active_queues": [
                queue
                | {"name": self._queue, "routing_key": self._queue, "exchange": None}
                | {"durable": True, "exclusive": False, "no_ack": False, "auto_delete": False}
            ],
            "registered": [TASK],
            "scheduled": [],
            "revoked": [],
            "conf": {},
            "timestamp": max(worker.heartbeats, default=None),
        }


def _held(task: Any) -> dict[str, Any]:
    return {
        "id": task.uuid,
        "name": task.name,
        "args": task.args,
        "kwargs": task.kwargs,
        "time_start": task.started,
        "acknowledged": False,
        "worker_pid": None,
        "hostname": task.worker.hostname,
    }
