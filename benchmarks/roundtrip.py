"""Uploads through the whole system: web, S3, SQS, worker, engine and back, on this machine's emulated AWS.

    python -m benchmarks.roundtrip --requests 200 --concurrency 100
    python -m benchmarks.roundtrip --images DIR   # with DIR/labels.csv: Image,Results

The last line is one JSON object. `wrong` counts replies that name another file or another person than expected, `lost`
counts uploads without a reply 200. `burst_100_s` is the time until the last of 100 simultaneous uploads is answered.
"""

import argparse
import csv
import hashlib
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.load import Upload, percentile, upload_all
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT

BURST = 100
OK = 200


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo with the name that the service should answer, in the style `name`."""

    path: Path
    answer: str


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=3, help="bursts of 100; the median is reported")
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facerec-roundtrip-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        state = Path(folder) / "state"
        with LocalSystem(state, workers=options.workers, environ={"FACEREC_REPLY_STYLE": "name"}) as system:
            print(f"enrolling {people}", file=sys.stderr)
            system.run("enrol", "--folder", str(people))
            await_enrolment(system, photos)
            print(json.dumps(measure(system.url, photos, options.requests, options.concurrency, options.bursts)))


def workload(images: Path, people: Path) -> tuple[Path, list[Photo]]:
    """The folder to enrol and the photos to upload: the examples, or a labelled folder's distinct pictures."""
    if (images / "expected.csv").exists():
        with (images / "expected.csv").open() as rows:
            special = {"unknown": "Unknown", "no_face": "No-Face"}
            photos = [
                Photo(images / "probes" / row["file"], special.get(row["outcome"], row["name"]))
                for row in csv.DictReader(rows)
            ]
        return images / "gallery", photos
    with (images / "labels.csv").open() as rows:
        photos = [Photo(images / f"{row['Image']}.jpg", row["Results"]) for row in csv.DictReader(rows)]
    for photo in {hashlib.sha256(photo.path.read_bytes()).digest(): photo for photo in photos}.values():
        (people / photo.answer).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, people / photo.answer)
    return people, photos


def await_enrolment(system: LocalSystem, photos: list[Photo]) -> None:
    """Upload until the workers know everyone: a change of the gallery reaches them within 5 s."""
    deadline = time.monotonic() + 15
    while wrong := ask(system.url, photos[: min(10, len(photos))], 10).wrong:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{wrong} answers are still wrong 15 s after the enrolment")


@dataclass(frozen=True, slots=True)
class Answers:
    """The replies to a number of clients."""

    seconds: float
    latencies_ms: list[float]
    answered: int
    wrong: int


def ask(url: str, photos: list[Photo], concurrency: int, count: int | None = None) -> Answers:
    """Upload `count` photos in turn, each under its own name."""
    chosen = list(itertools.islice(itertools.cycle(photos), count or len(photos)))
    uploads = [Upload(f"{i:05d}_{photo.path.name}", photo.path.read_bytes()) for i, photo in enumerate(chosen)]
    started = time.perf_counter()
    replies = upload_all(url, uploads, concurrency)
    seconds = time.perf_counter() - started
    answered = [(reply, photo) for reply, photo in zip(replies, chosen, strict=True) if reply.status == OK]
    wrong = [reply for reply, photo in answered if reply.text.strip() != f"{Path(reply.filename).stem}:{photo.answer}"]
    for reply in [r for r in replies if r.status != OK][:3] + wrong[:3]:
        print(f"  {reply.filename}: {reply.status} {reply.text.strip()}", file=sys.stderr)
    return Answers(seconds, [reply.seconds * 1000 for reply, _ in answered], len(answered), len(wrong))


def measure(url: str, photos: list[Photo], requests: int, concurrency: int, bursts: int) -> dict[str, float | int]:
    """Warm up, then the bursts, then the steady load, then single uploads on an idle system."""
    ask(url, photos, 20, 40)
    burst = [ask(url, photos, BURST, BURST) for _ in range(bursts)]
    load = ask(url, photos, concurrency, requests)
    idle = ask(url, photos, 1, 20)
    everything = [*burst, load, idle]
    sent = BURST * bursts + requests + 20
    return {
        "requests": requests,
        "answered": load.answered,
        "wrong": sum(a.wrong for a in everything),
        "lost": sent - sum(a.answered for a in everything),
        "p50_ms": round(percentile(load.latencies_ms, 50), 1),
        "p99_ms": round(percentile(load.latencies_ms, 99), 1),
        "per_second": round(load.answered / load.seconds, 2),
        "burst_100_s": round(statistics.median(a.seconds for a in burst), 2),
        "idle_p50_ms": round(percentile(idle.latencies_ms, 50), 1),
        "concurrency": concurrency,
    }


if __name__ == "__main__":
    main()
