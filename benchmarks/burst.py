"""Bursts of uploads on the real local fleet, from zero instances and back to zero.

    python -m benchmarks.burst --requests 100 --max-instances 4
    python -m benchmarks.burst --target-seconds 10          # the default, with which one instance is enough for 100
    python -m benchmarks.burst --cooldown-seconds 10 --boot-seconds 5

Each emulated instance is a real worker process. A thread counts the instances ten times a second. The target is so
short that 100 requests need the whole fleet. The last line is one JSON object:

- `wrong` and `lost` are as in benchmarks.roundtrip;
- `max_running` is the greatest number of instances that were pending or running at once;
- `to_first_answer_s` counts from the first upload, and is null without an answer; `to_zero_s` from the last answer;
- `amiss` lists the failed checks: wrong or lost requests, messages left in a queue, no answer, no instance, or more
  instances than the cap. The exit status is then 1.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.roundtrip import OK, Photo, workload
from tests.support.load import Reply, Upload, upload_all
from tests.support.local_system import FleetWatch, LocalSystem, queue_counts
from tests.support.measurements.summaries import BurstFigures, burst_summary
from tests.support.processes import CHECKOUT


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100, help="uploads in a burst, all at once")
    parser.add_argument("--max-instances", type=int, default=4, help="most instances of the fleet")
    parser.add_argument(
        "--target-seconds", type=float, default=1.0, help="the autoscaler's target (default: %(default)s)"
    )
    parser.add_argument("--bursts", type=int, default=2, help="bursts, one after the other, each from zero instances")
    parser.add_argument("--cooldown-seconds", type=float, default=0.0, help="the autoscaler's cooldown")
    parser.add_argument(
        "--boot-seconds",
        type=float,
        default=0.0,
        help="time that an emulated instance takes before it starts its worker",
    )
    parser.add_argument(
        "--images", type=Path, default=CHECKOUT / "examples", help="folder of photos, as for benchmarks.roundtrip"
    )
    options = parser.parse_args()
    environ = {
        "FACEREC_REPLY_STYLE": "name",
        "FACEREC_AUTOSCALE__MAX_INSTANCES": str(options.max_instances),
        "FACEREC_AUTOSCALE__COOLDOWN_SECONDS": str(options.cooldown_seconds),
        "FACEREC_AUTOSCALE__TARGET_SECONDS": str(options.target_seconds),
    }
    with tempfile.TemporaryDirectory(prefix="facerec-burst-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        boot = ("--boot-seconds", str(options.boot_seconds))
        with LocalSystem(Path(folder) / "state", workers=None, options=boot, environ=environ) as system:
            system.run("enrol", "--folder", str(people))
            bursts: list[BurstFigures] = []
            for number in range(options.bursts):
                bursts.append(burst(system, photos, options.requests, options.cooldown_seconds))
                print(f"burst {number + 1}: {json.dumps(bursts[-1])}", file=sys.stderr)
    summary = burst_summary(bursts, options.max_instances)
    print(json.dumps(summary, allow_nan=False))
    sys.exit(1 if summary["amiss"] else 0)


def burst(system: LocalSystem, photos: list[Photo], requests: int, cooldown_seconds: float) -> BurstFigures:
    """Upload `requests` photos at once to a system without instances, and wait until it has none again."""
    chosen = [photos[index % len(photos)] for index in range(requests)]
    uploads = [Upload(f"{i:05d}_{photo.path.name}", photo.path.read_bytes()) for i, photo in enumerate(chosen)]
    with FleetWatch(system) as watch:
        watch.zero_after(time.monotonic(), 60 + cooldown_seconds)
        began = time.monotonic()
        replies = upload_all(system.url, uploads, requests)
        ended = time.monotonic()
        to_zero = watch.zero_after(ended, 120 + cooldown_seconds)
        most = watch.most()
    return judged(system, replies, chosen) | {
        "max_running": most,
        "to_first_answer_s": min((round(r.seconds, 2) for r in replies if r.status == OK), default=None),
        "to_last_answer_s": round(ended - began, 2),
        "to_zero_s": round(to_zero, 2),
    }


def judged(system: LocalSystem, replies: list[Reply], photos: list[Photo]) -> BurstFigures:
    """Count the replies and the right ones, and the messages left in the queues."""
    answered = [(reply, photo) for reply, photo in zip(replies, photos, strict=True) if reply.status == OK]
    wrong = [r for r, photo in answered if r.text.strip() != f"{Path(r.filename).stem}:{photo.answer}"]
    for reply in [r for r in replies if r.status != OK][:3] + wrong[:3]:
        print(f"  {reply.filename}: {reply.status} {reply.text.strip()}", file=sys.stderr)
    prefix = system.environ.get("FACEREC_PREFIX", "facerec")
    visible, in_flight = queue_counts(system, f"{prefix}-req-queue")
    return {
        "answered": len(answered),
        "wrong": len(wrong),
        "lost": len(replies) - len(answered),
        "left_visible": visible,
        "left_in_flight": in_flight,
        "left_responses": sum(queue_counts(system, f"{prefix}-resp-queue")),
    }


if __name__ == "__main__":
    main()
