"""Faults under the functions, one after the other, each on its own system: nothing lost, nothing answered twice.

    python -m benchmarks.serverless_faults
    python -m benchmarks.serverless_faults --fault killed --fault poisoned

- *killed*: the Python processes of both functions get SIGKILL while they work on batches, three times.
- *poisoned*: one picture of ten kills the engine. Nine are answered; the tenth is in the dead-letter queue with its
  reason, and its client gets the failure.
- *hanging*: the same with a picture on which the engine never ends.
- *timeout*: a fifth of S3's answers come later than the functions' time limit.
- *throttled*: SQS refuses a third of the functions' calls. *s3*: S3 answers 503 to a fifth of them.

Each fault prints one line of JSON; the last line is one object with the sums. *lost* and *wrong* are those of
`benchmarks.serverless`, but dead letters and *failed* results are wrong only for pictures that are not poison; *twice*
are equal results that came again, *differing* are not. The exit status is 0 if every fault had an effect and lost,
wrong and differing are 0.
"""

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.roundtrip import Photo, workload
from benchmarks.serverless import prepare, say
from tests.support.faults.functions_system import Answer, FunctionsSystem, Sent
from tests.support.faults.poisoned_function import HANGING
from tests.support.faults.poisoned_worker import MARK
from tests.support.faults.rules import Harm, Rule, of
from tests.support.processes import CHECKOUT

_LIMIT_SECONDS = 240.0
_KILLS = 3
_TIMEOUT_SECONDS = 10
_LATE_SECONDS = 2.0 * _TIMEOUT_SECONDS
_SUMS = ("requests", "answered", "failed", "lost", "wrong", "twice", "differing", "dead_letters")
_MUST_BE_NONE = ("lost", "wrong", "differing", "left")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: rules of the proxy, or `harm` in a thread until the event is set; every `poisoned`-th photo is poison.

    `harm` returns how often it had an effect.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    harm: Callable[[FunctionsSystem, threading.Event], int] | None = None
    poisoned: int = 0
    mark: bytes = MARK
    requests: int = 40


def kill(system: FunctionsSystem, over: threading.Event) -> int:
    """SIGKILL the processes of both functions while messages are in flight."""
    killed = 0
    for _ in range(_KILLS):
        if over.wait(1.5) or not system.left():
            break
        for pid in [*system.runtimes("detection"), *system.runtimes("recognition")]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


FAULTS = (
    Fault("killed", harm=kill, requests=100),
    Fault("poisoned", poisoned=10, requests=10),
    Fault("hanging", poisoned=10, mark=HANGING, requests=10),
    Fault("timeout", (Rule(Harm.DELAY, share=0.2, matches=of("s3", "GetObject"), seconds=_LATE_SECONDS),)),
    Fault("throttled", (Rule(Harm.REFUSE, share=0.33, matches=of("sqs"), status=400, code="ThrottlingException"),)),
    Fault("s3", (Rule(Harm.REFUSE, share=0.2, matches=of("s3"), code="SlowDown"),)),
)


def main() -> None:
    """Run them and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", choices=[fault.name for fault in FAULTS])
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--logs", type=Path, help="folder for the processes' logs")
    options = parser.parse_args()
    prepare()
    rows = []
    for fault in FAULTS:
        if options.fault is None or fault.name in options.fault:
            say(fault.name)
            with tempfile.TemporaryDirectory(prefix="facerec-serverless-") as folder:
                people, photos = workload(options.images, Path(folder) / "people")
                state = Path(folder) / "state" if options.logs is None else options.logs / fault.name
                rows.append(run(fault, state, people, photos))
            print(json.dumps(rows[-1]), flush=True)
    sums = {name: sum(row[name] for row in rows) for name in _SUMS}
    passed = all(row["passed"] for row in rows)
    print(json.dumps({"faults": len(rows), **sums, "passed": passed, "machine": machine()}))
    sys.exit(0 if passed else 1)


def run(fault: Fault, state: Path, people: Path, photos: Sequence[Photo]) -> dict[str, Any]:
    """Inject one fault into a system of its own, under requests that arrive together."""
    environ = {"FACEREC_SERVERLESS__TIMEOUT_SECONDS": str(_TIMEOUT_SECONDS)}  # so a queue hides a message for 60 s
    handlers = {"detection": "tests.support.faults.poisoned_function.handler"} if fault.poisoned else {}
    with FunctionsSystem(state, environ=environ, handlers=handlers) as system:  # type: ignore[arg-type] # a literal
        system.run("enrol", "--folder", str(people))
        system.start_functions()
        sent = list(itertools.islice(_requests(system, photos, fault), fault.requests))
        over, effects = threading.Event(), [0]
        harming = threading.Thread(target=lambda: effects.append(fault.harm(system, over) if fault.harm else 0))
        system.proxy.rules = fault.rules
        began = time.monotonic()
        system.enqueue(sent)
        harming.start()
        answers = system.answers([one.id for one in sent], _LIMIT_SECONDS)
        seconds = time.monotonic() - began
        over.set()
        harming.join()
        harmed = sum(system.proxy.harmed.values())
        system.proxy.rules = ()
        left = system.left_when_idle(_LIMIT_SECONDS)
        for request_id, again in system.answers([], 1).items():
            answers.setdefault(request_id, []).extend(again)
        row = judged(sent, answers, system.dead_letters())
    effect = harmed + sum(effects) + (row["failed"] if fault.poisoned else 0)
    passed = bool(effect) and not any((row | {"left": left})[name] for name in _MUST_BE_NONE)
    return {"fault": fault.name, **row, "left": left, "effect": effect, "seconds": round(seconds, 1), "passed": passed}


def _requests(system: FunctionsSystem, photos: Sequence[Photo], fault: Fault) -> Iterator[Sent]:
    for number, photo in enumerate(itertools.cycle(photos)):
        content = photo.path.read_bytes()
        if fault.poisoned and number % fault.poisoned == fault.poisoned - 1:
            yield system.request(photo.path.name, content + fault.mark, "")
        else:
            yield system.request(photo.path.name, content, photo.answer)


def judged(sent: Sequence[Sent], answers: dict[str, list[Answer]], dead: dict[str, str | None]) -> dict[str, int]:
    """Count what became of the requests; `dead` has the reason of each dead letter by its body."""
    counts = dict.fromkeys(_SUMS, 0) | {"requests": len(sent), "dead_letters": len(dead)}
    reasons = {one.id: reason for one in sent for body, reason in dead.items() if one.id in body}
    for one in sent:
        poison = not one.answer
        said = [_stable(answer) for answer in answers.get(one.id, ())]
        failed = any(outcome == "failed" for outcome, _ in said)
        counts["answered"] += bool(said) and not failed
        counts["failed"] += failed
        counts["lost"] += not said or (poison and not reasons.get(one.id))
        counts["wrong"] += any(name != one.answer for _, name in said) or (one.id in reasons) != poison
        counts["differing"] += len(set(said)) > 1
        counts["twice"] += len(said) > 1
        if not said or any(name != one.answer for _, name in said) or (one.id in reasons) != poison:
            say(f"{one.id} {one.request.filename}: {said}, expected {one.answer!r}; {reasons.get(one.id)}")
    return counts


def _stable(answer: Answer) -> tuple[str, str]:
    """What a client acts on."""
    return answer.result["outcome"], answer.result["result"]


if __name__ == "__main__":
    main()
