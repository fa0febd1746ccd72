"""CPU time per request of a worker that drains a backlog: its own process, its engines, and the emulator.

    python -m benchmarks.worker_cost --images DIR     # DIR as for benchmarks.roundtrip
    python -m benchmarks.worker_cost --against TREE   # compare with another checkout's worker

Each turn starts one worker as an operator does, on a complete backlog, and counts from `--warm` results until the last
one. Figures are milliseconds of CPU time per request: median, least and greatest over the turns. `process` is the
Celery process with all its threads, `engines` its engine children. With `--against` the other checkout's figures are
under `against`, and `process_ratio` is the median over pairs of turns.

`calls` are the AWS calls per request by kind, counted in another, untimed turn behind a proxy.
The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.backlog import Backlog
from benchmarks.measure import machine
from benchmarks.roundtrip import workload
from facerec.settings import Settings
from tests.support.faults.faulty_aws import faulty_aws
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, cpu_seconds, descendants

_STALLED_SECONDS = 60
_PARTS = ("process", "engines", "emulator")


@dataclass(frozen=True, slots=True)
class Turn:
    """One backlog's drain; CPU time in milliseconds for each request."""

    process: float
    engines: float
    emulator: float
    per_second: float
    wrong: int


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="backlog of each turn")
    parser.add_argument("--warm", type=int, default=100, help="first results of each turn, which do not count")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each worker; medians are reported")
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--against", type=Path, metavar="TREE", help="a checkout to compare with")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facerec-worker-cost-")))
        people, photos = workload(options.images, folder / "people")
        # An engine for each core, which is a worker's default: an elastic local fleet has smaller workers.
        environ = {"FACEREC_REPLY_STYLE": "name", "FACEREC_WORKER__ENGINES": "0"}
        # Beside other work, engines may disagree on which precision is faster, which would end the worker.
        environ["FACEREC_PRECISION"] = "bf16" if machine()["bf16"] else "fp32"
        system = stack.enter_context(LocalSystem(folder / "state", workers=0, environ=environ))
        system.run("enrol", "--folder", str(people))
        os.environ.update({k: v for k, v in system.environ.items() if k.startswith(("AWS_", "FACEREC_"))})
        settings = Settings.load()
        backlog = Backlog(settings, photos, f"{settings.response_queue}-bench")
        trees = [CHECKOUT, *([options.against.resolve()] if options.against else [])]
        turns: dict[Path, list[Turn]] = {tree: [] for tree in trees}
        for number in range(options.rounds):
            # The side that begins alternates, because other work on the machine may drift.
            for tree in trees if number % 2 else reversed(trees):
                turns[tree].append(_turn(system, backlog, options.requests, options.warm, tree))
                print(f"round {number + 1}: {tree.name} {turns[tree][-1]}", file=sys.stderr)
        figures = _summary(turns[CHECKOUT]) | {"calls": _calls(system, backlog, options.requests)}
        if options.against:
            pairs = zip(turns[CHECKOUT], turns[trees[1]], strict=True)
            ratio = statistics.median(ours.process / other.process for ours, other in pairs)
            figures |= {"against": _summary(turns[trees[1]]), "process_ratio": round(ratio, 2)}
        print(json.dumps(figures))


def _turn(system: LocalSystem, backlog: Backlog, requests: int, warm: int, tree: Path) -> Turn:
    [emulator] = descendants(system.pid, "facerec.local.ministack_server")
    backlog.fill(requests)
    with system.worker(tree=tree) as worker:
        done, wrong = _collect(backlog, warm)
        began, before = time.perf_counter(), _used(worker, emulator)
        more, more_wrong = _collect(backlog, requests - done)
        spent = [after - then for after, then in zip(_used(worker, emulator), before, strict=True)]
        seconds = time.perf_counter() - began
    process, engines, emulated = (part / more * 1000 for part in spent)
    return Turn(process, engines, emulated, more / seconds, wrong + more_wrong)


def _used(worker: int, emulator: int) -> tuple[float, float, float]:
    """The CPU seconds so far of a worker's own process, of its engines, and of the emulator."""
    engines = cpu_seconds(*descendants(worker))
    return cpu_seconds(worker) - engines, engines, cpu_seconds(emulator)


def _collect(backlog: Backlog, wanted: int) -> tuple[int, int]:
    """Take results until there are at least so many; returns how many came, and how many of them are wrong."""
    done = wrong = 0
    moved = time.monotonic()
    while done < wanted:
        came, of_them_wrong = backlog.collect()
        done, wrong = done + came, wrong + of_them_wrong
        moved = time.monotonic() if came else moved
        if time.monotonic() - moved > _STALLED_SECONDS:
            raise RuntimeError(f"{wanted - done} results are missing")
    return done, wrong


def _calls(system: LocalSystem, backlog: Backlog, requests: int) -> dict[str, float]:
    """Return the worker's AWS calls per request, by kind, including those of its start."""
    calls: Counter[str] = Counter()
    backlog.fill(requests)
    with faulty_aws(system.environ["AWS_ENDPOINT_URL"]) as proxy:
        proxy.on_answer = lambda call, _status: calls.update([call.operation])
        endpoint = {"FACEREC_AWS__ENDPOINT_URL": proxy.url, "AWS_ENDPOINT_URL": proxy.url}
        with system.worker(endpoint):
            _collect(backlog, requests)
    return {operation: round(count / requests, 2) for operation, count in calls.most_common()}


def _summary(turns: Sequence[Turn]) -> dict[str, Any]:
    columns = {part: [getattr(turn, part) for turn in turns] for part in _PARTS}
    return {
        **{f"{part}_ms": round(statistics.median(column), 2) for part, column in columns.items()},
        "worker_ms": round(statistics.median(turn.process + turn.engines for turn in turns), 2),
        **{f"{part}_ms_range": [round(min(column), 2), round(max(column), 2)] for part, column in columns.items()},
        "per_second": round(statistics.median(turn.per_second for turn in turns), 1),
        "wrong": sum(turn.wrong for turn in turns),
    }


if __name__ == "__main__":
    main()
