"""Faults under load, one after the other, each on its own system; docs/faults.md describes them.

    python -m benchmarks.faults
    python -m benchmarks.faults --fault "web killed" --fault poison --requests 400
    python -m benchmarks.faults --list

Each fault prints one line of JSON; the last line is one object with the sums. Of the uploads,

- *answered* got a reply on their connection, *fetched* found the result later under the request id, and *told* got a
  final refusal;
- *lost*: SQS accepted the task, but there is neither a result nor a dead letter with a reason; or the client ended
  without an answer;
- *wrong*: the result belongs to another request or names another person;
- *duplicates_visible*: two results are stored, or the answer differs from the stored result;
- *handled*: how often workers finished one of the *accepted* tasks; *redelivered*: tasks that were delivered again;
- *dlq_amiss*: dead letters that were no poison, or have no reason.

The exit status is 0 if at least one fault was injected, each had its effect, and lost, wrong, duplicates_visible and
dlq_amiss are 0; otherwise 1. Faults that this machine cannot inject are *skipped*.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import machine
from benchmarks.roundtrip import workload
from tests.support.faults.cases import FAULTS, Fault, NotInjected
from tests.support.faults.clients import Photo, UploadClients, upload_under
from tests.support.faults.outcomes import AcceptedTasks, Row, final_state, judge, wait_until_idle
from tests.support.faults.poisoned_worker import MARK
from tests.support.faults.proxied_system import ProxiedSystem
from tests.support.processes import CHECKOUT

_WARM_UP = 20
_REST_SECONDS = 240.0
_MUST_BE_NONE = ("wrong", "lost", "duplicates_visible", "dlq_amiss")
_SUMS = ("requests", "answered", "fetched", "told", "accepted", "dlq", *_MUST_BE_NONE)


def main() -> None:
    """Run them and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--fault", action="append", choices=names, help="run only this fault; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--requests", type=int, default=200, help="least number of uploads under each fault")
    parser.add_argument("--rate", type=float, default=10.0, help="uploads started per second")
    parser.add_argument("--logs", type=Path, help="folder for the processes' logs")
    options = parser.parse_args()
    if options.list:
        print("\n".join(names))
        return
    rows = []
    for fault in FAULTS:
        if options.fault is None or fault.name in options.fault:
            _say(fault.name)
            try:
                rows.append(run(fault, options.requests, options.rate, options.logs))
            except NotInjected as exc:
                rows.append({"fault": fault.name, "not_harmed": str(exc), "passed": False})
            print(json.dumps(rows[-1]), flush=True)
    done = [row for row in rows if "skipped" not in row]
    skipped = [row["fault"] for row in rows if "skipped" in row]
    passed = bool(done) and all(row["passed"] for row in done)
    sums = {name: sum(row.get(name, 0) for row in done) for name in _SUMS}
    print(json.dumps({"faults": len(done), "skipped": skipped, **sums, "passed": passed, "machine": machine()}))
    sys.exit(0 if passed else 1)


def run(fault: Fault, requests: int, rate: float, logs: Path | None) -> Row:
    """Inject one fault into a system of its own, under load."""
    missing = fault.missing()
    if missing is not None:
        return {"fault": fault.name, "skipped": missing}
    with tempfile.TemporaryDirectory(prefix="facerec-faults-") as folder:
        state = Path(folder) if logs is None else logs / fault.name.replace(" ", "-").replace("%", "percent")
        people, samples = workload(CHECKOUT / "examples", Path(folder) / "people")
        bodies = [(photo.path.read_bytes(), photo.answer) for photo in samples]
        with ProxiedSystem(state, fault.processes(Path(folder)), _say) as system:
            system.run("enrol", "--folder", str(people))
            system.start_tiers()
            accepted_tasks = AcceptedTasks(f"{system.prefix}-req-queue")
            system.proxy.on_answer = accepted_tasks.note
            clients = UploadClients(system.url, rate)
            clients.upload(_photos("warm", bodies), _WARM_UP)
            began = time.monotonic()
            outcomes = upload_under(
                fault.harm, system, clients, _photos("photo", bodies, fault.poisoned), requests, lasts=fault.lasts
            )
            seconds = time.monotonic() - began
            rested = wait_until_idle(system, _REST_SECONDS)
            if fault.lasts and not system.proxy.harmed:
                raise NotInjected("the proxy has harmed no call")
            found = judge(outcomes, final_state(system), accepted_tasks.ids(), _say)
            if fault.redelivers and not found["redelivered"]:
                raise NotInjected("no task was delivered again")
            return {
                "fault": fault.name,
                **found,
                "seconds": round(seconds, 1),
                "rest_seconds": round(time.monotonic() - began - seconds, 1),
                "rested": rested,
                "harmed": dict(system.proxy.harmed),
                "passed": rested and not any(found[name] for name in _MUST_BE_NONE),
            }


def _photos(name: str, bodies: Sequence[tuple[bytes, str]], poisoned: int = 0) -> Iterator[Photo]:
    for number, (body, answer) in enumerate(itertools.cycle(bodies)):
        filename = f"{name}{number:05d}.jpg"
        if poisoned and number % poisoned == poisoned - 1:
            yield Photo(filename, body + MARK, None)
        else:
            yield Photo(filename, body, answer)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
