"""A device before the cloud: latency, speed on one core, bytes, and what is lost, on an emulated AWS.

    python -m benchmarks.edge
    python -m benchmarks.edge --images DIR --tier serverless   # with DIR/labels.csv, as for benchmarks.roundtrip
    python -m benchmarks.edge_faults

The device is `facerec edge run`. It connects to mosquitto by TLS with its certificate, and mosquitto's bridge to the
emulated AWS IoT Core, whose rules put the messages onto SQS. Frames are the photos, scaled to 512x512 pixels. The right
answer is what the same system answers to the whole frame, sent as an upload is.

- `no_face`: frames without a face while nothing takes messages of the request queue and the faces queue, so that these
  must stay empty: `queued` are the messages in them, `bytes_per_frame` what the device sends for such a frame.
- `p50_ms`, `p99_ms`: one frame every 0.5 s on the topic `clients/<thing>`: from publishing it to its answer on the
  response queue. `bandwidth_saved`: 1 - (bytes that the device sent) / (bytes of the frames). Sent bytes are those of
  the TCP connection, with TLS, MQTT, acknowledgements of frames, and status messages.
- `frames_per_s`: frames in a folder, as fast as the device takes them: from when the first is spooled until the last
  message is at the broker. All processes of the device are on one core, where other work of the machine may run, too,
  but for `--real-time`. `cpu_ms_per_frame` is their CPU time, and `frames_per_cpu_s` follows from it. No other part of
  the system works meanwhile.
- `lost`: no answer on the response queue. `wrong`: an answer with another name, a message that stays in a queue, a dead
  letter, or a queue that a frame without a face has touched. `twice`: answers that came a second time.

The last line is one JSON object; the exit status is 1 if anything is lost or wrong, or the component ended by itself.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import least_busy_core, machine
from benchmarks.roundtrip import workload
from benchmarks.serverless import prepare, say
from facerec.processes.addresses import poll_until
from tests.support.edge_device import EdgeDevice
from tests.support.edge_system import (
    CloudClient,
    EdgeSystem,
    Scene,
    empty_scenes,
    frame_message,
    named,
    scaled,
)
from tests.support.faults.functions_system import Answer
from tests.support.load import percentile
from tests.support.processes import CHECKOUT

_EVERY_SECONDS = 0.5
_EMPTY = 20
_ANSWER_SECONDS = 120.0
_REAL_TIME = 5
"""A priority above all that is not real-time."""
_BY_TOPIC, _BY_FOLDER = "gate", "yard"


@dataclass(slots=True)
class Verdict:
    """What became of the frames of all loads."""

    frames: int = 0
    answered: int = 0
    lost: int = 0
    wrong: int = 0
    twice: int = 0

    def add(self, frames: Mapping[str, Scene], answers: Mapping[str, list[Answer]]) -> None:
        """Judge the answers to these frames; at most five faults are shown."""
        shown = 0
        for name, scene in frames.items():
            said = [answer.result["result"] for answer in answers.get(name, ())]
            amiss = any(one != scene.answer for one in said)
            self.frames += 1
            self.answered += bool(said)
            self.lost += not said
            self.wrong += amiss
            self.twice += len(said) > 1
            if (amiss or not said) and shown < 5:  # noqa: PLR2004 - as the docstring says
                shown += 1
                say(f"{name}: {said or 'lost'}, expected {scene.answer}")


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--frames", type=int, default=100, help="frames of each load (default: %(default)s)")
    parser.add_argument("--tier", choices=["ec2", "serverless"], default="ec2", help="what recognises the faces")
    parser.add_argument("--direct", action="store_true", help="without mosquitto: connect to the emulated AWS IoT Core")
    parser.add_argument(
        "--real-time", action="store_true", help="on a busy machine: let nothing else onto the device's core (as root)"
    )
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory(prefix="facerec-edge-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        pictures = [scaled(photo.path) for photo in photos[: options.frames]]
        things = (_BY_TOPIC, _BY_FOLDER)
        state = Path(folder) / "state"
        with EdgeSystem(state, tier=options.tier, things=things, mosquitto=not options.direct) as system:
            system.run("enrol", "--folder", str(people))
            figures = measured(system, pictures, options.frames, real_time=options.real_time)
    print(json.dumps(figures | {"tier": options.tier, "machine": machine()}))
    sys.exit(1 if figures["lost"] or figures["wrong"] or figures["ended_by_itself"] else 0)


def measured(system: EdgeSystem, pictures: list[bytes], count: int, *, real_time: bool) -> dict[str, Any]:
    """The figures of all loads."""
    verdict = Verdict()
    cloud = system.cloud_client()
    by_topic = system.device(_BY_TOPIC, source="topic")
    by_folder = system.device(_BY_FOLDER, source="folder", tracking=False)
    cloud.watch(by_topic.faces, by_folder.faces)
    say("frames without a face")
    by_topic.start()
    no_face = without_faces(system, cloud, by_topic, verdict)
    by_topic.stop()
    say("from a folder, on one core")
    burst = named([Scene(picture, "") for picture in pictures], count, "burst")
    speed = from_folder(cloud, by_folder, burst, real_time=real_time)
    say("the whole frames on the ordinary path")
    system.start_cloud()
    answers = system.answers_by_name(burst, _ANSWER_SECONDS)
    scenes = system.scenes(pictures)
    verdict.add(named(scenes, count, "burst"), answers)
    say("one every half second")
    by_topic.start()
    paced = one_by_one(system, cloud, by_topic, named(scenes, count), verdict)
    left, dead = system.left_when_idle(), system.dead_letters()
    if left or dead:
        say(f"{left} messages stay in the queues; dead letters: {list(dead.values())}")
    ended = by_topic.ended_by_itself + by_folder.ended_by_itself + (not by_topic.runs())
    return {
        "frames": verdict.frames,
        "answered": verdict.answered,
        "wrong": verdict.wrong + left + len(dead) + no_face["queued"],
        "lost": verdict.lost,
        "twice": verdict.twice,
        **paced,
        **speed,
        "no_face": no_face,
        "ended_by_itself": ended,
    }


def without_faces(system: EdgeSystem, cloud: CloudClient, device: EdgeDevice, verdict: Verdict) -> dict[str, Any]:
    """Send frames without a face while no tier runs."""
    frames = named(empty_scenes(_EMPTY), _EMPTY, "empty")
    before = device.bytes_sent(system.port)
    for name, scene in frames.items():
        cloud.send(device.thing, frame_message(name, scene.content))
    answers = system.answers_by_name(frames, _ANSWER_SECONDS)
    sent = device.bytes_sent(system.port) - before
    verdict.add(frames, answers)
    queues = system.counts()
    return {
        "answered": len(answers),
        "queued": sum(queues.values()),
        "bytes_per_frame": round(sent / _EMPTY),
        "frame_bytes": round(sum(len(scene.content) for scene in frames.values()) / _EMPTY),
    }


def from_folder(
    cloud: CloudClient, device: EdgeDevice, frames: Mapping[str, Scene], *, real_time: bool
) -> dict[str, float]:
    """Let the device, whose processes are on one core, work off a folder."""
    for name, scene in frames.items():
        device.put(name, scene.content)
    priority = ("chrt", "--rr", str(_REAL_TIME)) if real_time else ()
    device.start(*priority, "taskset", "--cpu-list", str(least_busy_core()))
    before = device.cpu_seconds()
    poll_until(lambda: device.waiting() < len(frames), _ANSWER_SECONDS)
    began, left = time.monotonic(), device.waiting()
    cloud.wait_for(device.faces, len(frames), _ANSWER_SECONDS)
    cpu = device.cpu_seconds() - before
    device.stop()
    return {
        "frames_per_s": round(left / (cloud.times(device.faces)[-1] - began), 1),
        "cpu_ms_per_frame": round(cpu * 1000 / len(frames), 1),
        "frames_per_cpu_s": round(len(frames) / cpu, 1),
    }


def one_by_one(
    system: EdgeSystem, cloud: CloudClient, device: EdgeDevice, frames: Mapping[str, Scene], verdict: Verdict
) -> dict[str, float]:
    """Send one frame after the other over MQTT, at their times."""
    sent_at: dict[str, float] = {}
    bytes_before, cpu_before = device.bytes_sent(system.port), device.cpu_seconds()
    began = time.monotonic()
    for number, (name, scene) in enumerate(frames.items()):
        time.sleep(max(0.0, began + number * _EVERY_SECONDS - time.monotonic()))
        message = frame_message(name, scene.content)
        sent_at[name] = time.time()
        cloud.send(device.thing, message)
    answers = system.answers_by_name(frames, _ANSWER_SECONDS)
    sent, cpu = device.bytes_sent(system.port) - bytes_before, device.cpu_seconds() - cpu_before
    verdict.add(frames, answers)
    latencies = [(answers[name][0].arrived_at - at) * 1000 for name, at in sent_at.items() if name in answers]
    whole = sum(len(scene.content) for scene in frames.values())
    return {
        "p50_ms": round(percentile(latencies, 50), 1),
        "p99_ms": round(percentile(latencies, 99), 1),
        "bandwidth_saved": round(1 - sent / whole, 3),
        "bytes_per_frame": round(sent / len(frames)),
        "frame_bytes": round(whole / len(frames)),
        "paced_cpu_ms_per_frame": round(cpu * 1000 / len(frames), 1),
    }


if __name__ == "__main__":
    main()
