"""The functions under AWS's own runtime emulator, on an emulated AWS: start, speed, cost, and what is lost.

    python -m benchmarks.serverless --images DIR   # with DIR/labels.csv, as for benchmarks.roundtrip
    python -m benchmarks.serverless --mixed
    python -m benchmarks.serverless --zip dist/lambda-x86_64.zip
    python -m benchmarks.serverless_faults

- `cold_start_detect_ms`, `cold_start_recognise_ms`: from the start of the emulator's process to the first answer, the
  median of `--runs`, files in the page cache. Detection answers a call of its URL when the faces are on their queue;
  recognition answers a message of that queue when the result is stored and published. `*_cpu_ms`: the CPU time of
  the same in all processes, which other work on the machine changes less.
- `warm_p50_ms`, `warm_p99_ms`: one photo after the other through the URL, until its result is on the response queue.
  `url_p50_ms` is until the URL's answer. `detect_alone_ms` and `recognise_alone_ms` are invocations with one message,
  `*_batched_ms` the share of one in ten: what Lambda bills.
- `per_second`: photos through the URL at once, until the last result is on the response queue.
- `lost`: no result on the response queue. `wrong`: a result with another name, a second one that differs, a message
  that stays in a queue, or a dead letter. `twice`: results that came a second time, which is harmless.
- `cost_per_1000_usd`: with these durations, at 1 000 photos an hour, evenly spread (docs/cost.md).
- `image_mb`, `zip_mb`: the image that `make test-images` has built, unpacked with its base, and the archive in `dist`;
  null if they are not there.

`--mixed` lets the functions and one worker on EC2's side share the requests. `--zip` measures the functions as they run
from the archive, in a Python of Lambda's version. The last line is one JSON object; the exit
status is 1 if anything is lost or wrong.
"""

import argparse
import asyncio
import base64
import compileall
import itertools
import json
import logging
import statistics
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog

from benchmarks.measure import machine
from benchmarks.roundtrip import Photo, workload
from facerec.celery_sqs.envelope import task_message
from facerec.local.functions.events import sqs_event
from facerec.local.functions.instance import Instance
from facerec.local.functions.pool import FunctionPool
from facerec.processes.children import OrphanReaper
from facerec.provision.iam_statements import Half
from tests.support import images
from tests.support.faults.functions_system import Answer, FunctionsSystem, Sent
from tests.support.load import percentile
from tests.support.measurements import cost
from tests.support.processes import CHECKOUT, cpu_seconds

REQUESTS = 100
_BATCH = 10
_WARM = 40
_ANSWER_SECONDS = 120.0
_ANSWERED = frozenset({200, 202})
_MB = 1e6
_PHOTOS_AN_HOUR = 1000


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--runs", type=int, default=5, help="cold starts of each function")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="photos of each load")
    parser.add_argument("--mixed", action="store_true", help="functions and a worker share twice as many requests")
    parser.add_argument("--zip", type=Path, help="archive of the functions (make lambda-zip)")
    parser.add_argument("--python", default="python3.12", help="interpreter for --zip (default: %(default)s)")
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory(prefix="facerec-serverless-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        state = Path(folder) / "state"
        if options.mixed:
            figures = mixed(state, people, photos, 2 * options.requests)
        else:
            package = None
            if options.zip is not None:
                package = Path(folder) / "task"
                zipfile.ZipFile(options.zip).extractall(package)
            system = FunctionsSystem(state, package=package, python=options.python)
            figures = measured(system, people, photos, options.runs, options.requests)
    print(json.dumps(figures | {"machine": machine()}))
    sys.exit(1 if figures["lost"] or figures["wrong"] else 0)


def prepare() -> None:
    """Compile our packages, as they are in an image, and let the local Lambda service log problems alone."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for package in ("facerec", "model"):
        compileall.compile_dir(CHECKOUT / package, quiet=1)


def measured(
    functions: FunctionsSystem, people: Path, photos: Sequence[Photo], runs: int, requests: int
) -> dict[str, Any]:
    """The figures of the functions alone."""
    with functions as system:
        system.run("enrol", "--folder", str(people))
        faces = face_messages(system, photos)
        say("cold starts")
        cold = {
            **cold_start(system, "detect", "detection", url_event(new(system, photos[0])), runs),
            **cold_start(system, "recognise", "recognition", queue_event(system, faces[:1]), runs),
        }
        say("invocations")
        durations = billed_ms(system, photos, faces)
        system.answers([], 0)  # what these invocations have published
        system.start_functions()
        say("one after the other")
        warm = one_after_the_other(system, photos)
        say("one per second")
        paced = load(system, photos, requests, pause_seconds=1.0)
        say("at once")
        burst = load(system, photos, requests)
    parts = (warm.verdict, paced.verdict, burst.verdict)
    return {
        **cold,
        "warm_p50_ms": round(percentile(warm.latencies_ms, 50), 1),
        "warm_p99_ms": round(percentile(warm.latencies_ms, 99), 1),
        "url_p50_ms": round(percentile(warm.url_ms, 50), 1),
        "per_second": round(requests / (max(burst.latencies_ms) / 1000), 1),
        "paced_p50_ms": round(percentile(paced.latencies_ms, 50), 1),
        **sizes_mb(),
        "cost_per_1000_usd": round(cost_usd(durations, cold), 4),
        **durations,
        "requests": sum(verdict.requests for verdict in parts),
        "lost": sum(verdict.lost for verdict in parts),
        "wrong": sum(verdict.wrong for verdict in parts),
        "twice": sum(verdict.twice for verdict in parts),
    }


def mixed(state: Path, people: Path, photos: Sequence[Photo], requests: int) -> dict[str, Any]:
    """The functions and a worker on one request queue; the results tell who did which by their precision and engine."""
    with FunctionsSystem(state, concurrency=1, environ={"FACEREC_APP_TIER": "both"}) as system:
        system.run("enrol", "--folder", str(people))
        system.start_functions()
        system.start_workers()
        sent = [new(system, photo) for photo in itertools.islice(itertools.cycle(photos), requests)]
        began = time.monotonic()
        system.enqueue(sent)
        answers = system.answers([one.id for one in sent], _ANSWER_SECONDS)
        seconds = time.monotonic() - began
        verdict = judged(system, sent, answers)
        by_engine = Counter(some[0].result["engine"] for some in answers.values() if "engine" in some[0].result)
    return {
        "requests": requests,
        "by_functions": by_engine["onnxruntime"],
        "by_worker": by_engine["openvino"],
        "per_second": round(requests / seconds, 1),
        "lost": verdict.lost,
        "wrong": verdict.wrong + (min(by_engine["onnxruntime"], by_engine["openvino"]) == 0),
        "twice": verdict.twice,
    }


def new(system: FunctionsSystem, photo: Photo) -> Sent:
    """A request for a photo."""
    return system.request(photo.path.name, photo.path.read_bytes(), photo.answer)


def body_of(sent: Sent) -> bytes:
    """The body of a call of the URL."""
    content = base64.b64encode(sent.content).decode()
    return json.dumps({"request_id": sent.id, "content": content, "filename": sent.request.filename}).encode()


def url_event(sent: Sent) -> bytes:
    """The event of a call of the URL, in the payload format 2.0."""
    http = {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"}
    context = {"http": http, "requestId": sent.id, "stage": "$default"}
    return json.dumps(
        {"version": "2.0", "requestContext": context, "headers": {}, "body": body_of(sent).decode()}
    ).encode()


def queue_event(system: FunctionsSystem, bodies: Sequence[str]) -> bytes:
    """The event of a batch of messages that are in no queue."""
    messages: Any = [
        {
            "MessageId": str(number),
            "ReceiptHandle": "none",
            "Body": body,
            "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "0"},
        }
        for number, body in enumerate(bodies)
    ]
    return json.dumps(
        sqs_event(messages, "arn:aws:sqs:us-east-1:012345678912:queue", system.settings.aws.region)
    ).encode()


def face_messages(system: FunctionsSystem, photos: Sequence[Photo]) -> list[str]:
    """The messages with which the detection hands ten photos on."""
    sent = [new(system, photo) for photo in itertools.islice(itertools.cycle(photos), 2 * _BATCH)]
    system.enqueue(sent)
    system.receive(system.settings.request_queue)
    pool = system.pool("detection")
    pool.invoke(queue_event(system, [task_message(one.request) for one in sent]))
    found: list[str] = []
    while batch := system.receive(system.settings.faces_queue):
        found += [message["Body"] for message in batch]
    if len(found) < _BATCH:
        raise RuntimeError(f"only {len(found)} of {len(sent)} photos have faces")
    return found[:_BATCH]


def cold_start(system: FunctionsSystem, name: str, half: Half, event: bytes, runs: int) -> dict[str, float]:
    """The medians from the start of the process to the answer; one more run before fills the page cache."""
    seconds, cpu = [], []
    for _ in range(runs + 1):
        reaper = OrphanReaper(1.0)
        started = time.perf_counter()
        with Instance(
            system.function(half), system.emulator_path, reaper, system.state / "logs" / f"{half}.log"
        ) as one:
            one.invoke(event)
            seconds.append(time.perf_counter() - started)
            cpu.append(cpu_seconds(one.pid))
        reaper.close()
    return {
        f"cold_start_{name}_ms": round(statistics.median(seconds[1:]) * 1000),
        f"cold_start_{name}_cpu_ms": round(statistics.median(cpu[1:]) * 1000),
    }


def billed_ms(system: FunctionsSystem, photos: Sequence[Photo], faces: Sequence[str]) -> dict[str, float]:
    """The durations of warm invocations for one photo alone, and of one in a batch of ten."""
    sent = [new(system, photo) for photo in itertools.islice(itertools.cycle(photos), _BATCH)]
    system.enqueue(sent)
    while system.receive(system.settings.request_queue, wait_seconds=0):
        pass
    tasks = [task_message(one.request) for one in sent]
    figures = {}
    for name, half, bodies in (("detect", "detection", tasks), ("recognise", "recognition", faces)):
        pool = system.pool(half)  # type: ignore[arg-type] # a literal
        for form, count in (("alone", 1), ("batched", _BATCH)):
            event = queue_event(system, bodies[:count])
            figures[f"{name}_{form}_ms"] = round(_median_ms(pool, event) / count, 1)
    while system.receive(system.settings.faces_queue, wait_seconds=0):
        pass
    return figures


def _median_ms(pool: FunctionPool, event: bytes) -> float:
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        pool.invoke(event)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:]) * 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the requests of one load."""

    requests: int
    lost: int
    wrong: int
    twice: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The times of one load: until results were on the response queue, until the URL answered; and the verdict."""

    latencies_ms: list[float]
    url_ms: list[float]
    verdict: Verdict


def one_after_the_other(system: FunctionsSystem, photos: Sequence[Photo]) -> Outcome:
    """Send the next photo when the result of the one before is on the response queue."""
    parts = [load(system, [photo], 1) for photo in itertools.islice(itertools.cycle(photos), _WARM + 5)][5:]
    total = Verdict(
        *(sum(getattr(part.verdict, name) for part in parts) for name in ("requests", "lost", "wrong", "twice"))
    )
    return Outcome(
        [ms for part in parts for ms in part.latencies_ms], [ms for part in parts for ms in part.url_ms], total
    )


def load(system: FunctionsSystem, photos: Sequence[Photo], requests: int, pause_seconds: float = 0.0) -> Outcome:
    """Call the URL for each photo at its time, or at once; then take the results off the response queue."""
    sent = [new(system, photo) for photo in itertools.islice(itertools.cycle(photos), requests)]
    calls = asyncio.run(_call(system.function_url, sent, pause_seconds))
    answers = system.answers([one.id for one in sent], _ANSWER_SECONDS)
    arrived = [(answers[one.id][0].arrived_at - calls[one.id][0]) * 1000 for one in sent if one.id in answers]
    return Outcome(arrived, [seconds * 1000 for _, seconds in calls.values()], judged(system, sent, answers))


async def _call(url: str, sent: Sequence[Sent], pause_seconds: float) -> dict[str, tuple[float, float]]:
    """The time of each call, in seconds since the epoch, and how long it took."""
    async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:

        async def one(number: int, request: Sent) -> tuple[float, float]:
            await asyncio.sleep(number * pause_seconds)
            at, started = time.time(), time.perf_counter()
            reply = await client.post(url, content=body_of(request), headers={"content-type": "application/json"})
            if reply.status_code not in _ANSWERED:
                say(f"{request.request.filename}: {reply.status_code} {reply.text}")
            return at, time.perf_counter() - started

        times = await asyncio.gather(*(one(number, request) for number, request in enumerate(sent)))
    return {request.id: time_ for request, time_ in zip(sent, times, strict=True)}


def judged(system: FunctionsSystem, sent: Sequence[Sent], answers: Mapping[str, Sequence[Answer]]) -> Verdict:
    """Compare the results with what was sent; the queues must be empty, and no dead letter be there."""
    lost = [one for one in sent if one.id not in answers]
    wrong = [one for one in sent if any(answer.result["result"] != one.answer for answer in answers.get(one.id, ()))]
    for one in [*lost, *wrong][:3]:
        say(f"{one.id} {one.request.filename}: {answers.get(one.id, 'lost')}, expected {one.answer}")
    left, dead = system.left_when_idle(), system.dead_letters()
    if left or dead:
        say(f"{left} messages stay in the queues; dead letters: {dead}")
    twice = sum(len(answers.get(one.id, ())) > 1 for one in sent)
    return Verdict(len(sent), len(lost), len(wrong) + left + len(dead), twice)


def cost_usd(durations: Mapping[str, float], cold: Mapping[str, float]) -> float:
    """The dollars for 1 000 photos with the measured durations."""
    detection, recognition = (
        cost.Half(
            one.memory_mb,
            start_seconds=cold[f"cold_start_{name}_ms"] / 1000,
            alone_seconds=durations[f"{name}_alone_ms"] / 1000,
            batched_seconds=durations[f"{name}_batched_ms"] / 1000,
        )
        for name, one in (("detect", cost.MEASURED.detection), ("recognise", cost.MEASURED.recognition))
    )
    return cost.functions_cost(cost.Load(_PHOTOS_AN_HOUR), cost.Functions(detection, recognition))


def sizes_mb() -> dict[str, float | None]:
    """The sizes of what is deployed, if it was built here."""
    archive = CHECKOUT / "dist" / "lambda-x86_64.zip"
    try:
        image = round(images.megabytes("localhost/facerec-lambda"), 1)
    except (AssertionError, OSError) as exc:  # no such image, or no buildah
        say(f"no image: {str(exc).splitlines()[-1]}")
        image = None
    return {"image_mb": image, "zip_mb": round(archive.stat().st_size / _MB, 1) if archive.exists() else None}


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
