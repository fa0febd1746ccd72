"""Faults between a device and the cloud, one after the other, each on its own system: nothing lost, nothing wrong.

    python -m benchmarks.edge_faults
    python -m benchmarks.edge_faults --fault both --fault spool_full --tier serverless

- *broker*: the broker is killed for 30 s while frames come. *component*: the device's process gets SIGKILL three times,
  while frames come over MQTT. *both*: both at once; the process starts again while the broker is away.
- *spool_full*: the broker is away until a small spool has dropped messages. They must be the oldest, and counted in the
  status message; all others are answered, and were sent in order.
- *revoked*: the broker refuses the device's certificate until the device gets a new one.
- *policy*: for a time, the policy of the device does not allow its faces topic.
- *clock*: the times of the frames are hours ahead and days ago.
- *malformed*: bad base64, no JSON, missing fields, no picture, half a picture, 20 MB; in a topic and in a folder.
- *same_id*: for 30 s a second process connects with the device's client id, and one uses its state folder.

Each fault prints one line of JSON; the last line is one object with the sums. *promised* are the frames that the fault
may take: those that the full spool dropped, those whose messages were refused, those that are no frames. *lost* frames
are not answered and not promised. *wrong* are answers with another name, answers to what is no frame, messages that
stay in a queue, and dead letters. *twice* are answers that came again, which is harmless. *ended* counts ends of the
device's process that the fault did not cause. *failed* are the fault's own checks that failed, such as a refusal that
was not logged exactly once. The exit status is 0 if all but *twice* and *promised* are none.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from awscrt import mqtt  # type: ignore[import-untyped] # it ships no types
from awsiot import mqtt_connection_builder  # type: ignore[import-untyped] # as above

from benchmarks.edge import Verdict
from benchmarks.measure import machine
from benchmarks.roundtrip import workload
from benchmarks.serverless import prepare, say
from facerec.edge_messages import frames_topic
from facerec.processes.addresses import poll_until
from tests.support.edge_device import EdgeDevice, edge_environ, in_turn
from tests.support.edge_system import EdgeSystem, Scene, frame_message, named, scaled
from tests.support.mosquitto import CLOUD
from tests.support.processes import CHECKOUT, Command, facerec

_THING, _SECOND = "gate", "yard"
_LIMIT_SECONDS = 120.0
_AWAY_SECONDS = 30.0
_EVERY_SECONDS = 0.25
_HOUR_SECONDS = 3600.0
_TWENTY_MB = 20_000_000
_SUMS = ("frames", "answered", "promised", "lost", "wrong", "twice", "ended")
_MUST_BE_NONE = ("lost", "wrong", "ended", "failed")


@dataclass(slots=True)
class Trial:
    """One fault while it runs."""

    system: EdgeSystem
    scenes: list[Scene]
    frames: dict[str, Scene] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)
    """The names of frames that the fault may take."""
    checks: dict[str, bool] = field(default_factory=dict)

    def make(self, count: int, prefix: str = "frame") -> dict[str, bytes]:
        """Frames that are to be answered."""
        frames = named(self.scenes, count, prefix)
        self.frames |= frames
        return {name: scene.content for name, scene in frames.items()}

    @contextmanager
    def coming(self, device: EdgeDevice, count: int, every_seconds: float = _EVERY_SECONDS) -> Iterator[None]:
        """Frames come into the device's folder during the block, which ends when all are there."""
        thread = threading.Thread(target=in_turn, args=[device, self.make(count), every_seconds])
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def once(self, device: EdgeDevice, event: str, by: str = "reason", *, least: int = 1) -> None:
        """Check that the log has the event, and for each value of its field `by` only once."""
        said = Counter(str(line.get(by)) for line in device.lines(event))
        self.checks[f"{event} is logged once"] = len(said) >= least and all(count == 1 for count in said.values())
        if not self.checks[f"{event} is logged once"]:
            say(f"  {event}: {dict(said)}")


def broker(trial: Trial) -> None:
    """Kill the broker in mid-stream."""
    device = trial.system.device(_THING, source="folder")
    device.start()
    with trial.coming(device, 160):
        time.sleep(4)
        trial.system.broker.kill()
        time.sleep(_AWAY_SECONDS)
        trial.system.broker.start()
    device.wait_for("iot_core_reachable_again")
    trial.once(device, "iot_core_unreachable")


def component(trial: Trial) -> None:
    """Kill the device's process three times; frames wait at the broker meanwhile."""
    device = trial.system.device(_THING, source="topic")
    device.start()
    frames = trial.make(80)

    def send() -> None:
        publisher = trial.system.cloud_client()
        for name, content in frames.items():
            publisher.send(_THING, frame_message(name, content))
            time.sleep(_EVERY_SECONDS)

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(3):
        time.sleep(3)
        device.kill()
        time.sleep(1)
        device.start()
    thread.join()


def both(trial: Trial) -> None:
    """Kill broker and process at once; the process starts again without a broker."""
    device = trial.system.device(_THING, source="folder")
    device.start()
    with trial.coming(device, 160):
        time.sleep(4)
        trial.system.broker.kill()
        device.kill()
        device.start()
        time.sleep(_AWAY_SECONDS)
        trial.system.broker.start()
    device.wait_for("iot_core_reachable_again")


def spool_full(trial: Trial) -> None:
    """Let more messages wait than the spool takes."""
    cloud = trial.system.cloud_client()
    device = trial.system.device(_THING, source="folder", spool_max_bytes=1_000_000, status_seconds=2)
    cloud.watch(device.faces, device.status)
    trial.system.broker.stop()  # in order: it must know the subscriptions again
    device.start()
    for name, content in trial.make(250).items():
        device.put(name, content)
    trial.checks["all frames are spooled or dropped"] = poll_until(lambda: not device.waiting(), _LIMIT_SECONDS)
    trial.system.broker.start()
    order = list(trial.frames)
    poll_until(lambda: order[-1] in cloud.names(device.faces), _LIMIT_SECONDS)
    arrived = cloud.names(device.faces)
    dropped = len(order) - len(arrived)
    trial.promised = set(order[:dropped])
    trial.checks["the oldest are missing, the others in order"] = dropped > 0 and arrived == order[dropped:]
    told = poll_until(lambda: bool(_dropped(cloud.messages(device.status))), 10)
    trial.checks["the status counts them"] = told and _dropped(cloud.messages(device.status)) == dropped
    trial.once(device, "spool_full")


def _dropped(statuses: list[dict[str, Any]]) -> int:
    """What the last status says."""
    full = [status for status in statuses if "spool" in status]  # the broker's own has no fields
    return int(full[-1]["spool"]["dropped"]) if full else 0


def revoked(trial: Trial) -> None:
    """Revoke the certificate while frames come; the device then gets a new one."""
    device = trial.system.device(_THING, source="folder", status_seconds=1)
    device.start()
    with trial.coming(device, 80):
        time.sleep(4)
        trial.system.broker.revoke(_THING)
        time.sleep(10)
        trial.checks["the process goes on"] = device.runs()
        trial.checks["messages are spooled"] = poll_until(lambda: _spooled(device) > 0, 10)
        trial.once(device, "iot_core_unreachable")
        reasons = [line["reason"] for line in device.lines("iot_core_unreachable")]
        trial.checks["the reason names the certificate"] = any("certificate" in reason for reason in reasons)
        trial.system.broker.authority.issue(_THING)  # into the same files
        trial.checks["it ends in order"] = device.stop() == 0
        device.start()


def _spooled(device: EdgeDevice) -> int:
    return int(device.last_status()["spool"]["messages"])


def policy(trial: Trial) -> None:
    """Forbid the faces topic for a time."""
    cloud = trial.system.cloud_client()
    device = trial.system.device(_THING, source="folder", status_seconds=1)
    cloud.watch(device.faces, device.status)
    device.start()
    _put_all(device, trial.make(10, "before"))
    cloud.wait_for(device.faces, 10)
    trial.system.broker.set_faces_allowed(allowed=False)
    statuses = len(cloud.messages(device.status))
    forbidden = trial.make(10, "forbidden")
    trial.promised = set(forbidden)
    _put_all(device, forbidden)
    trial.checks["each is counted as refused"] = poll_until(lambda: _counted(device, "refused") == len(forbidden), 20)
    cloud.wait_for(device.status, statuses + 2)
    trial.system.broker.set_faces_allowed(allowed=True)
    _put_all(device, trial.make(10, "after"))
    cloud.wait_for(device.faces, 20)
    trial.once(device, "message_refused")


def _counted(device: EdgeDevice, counter: str) -> int:
    return int(device.last_status()["counters"][counter])


def _put_all(device: EdgeDevice, frames: Mapping[str, bytes]) -> None:
    for name, content in frames.items():
        device.put(name, content)


def clock(trial: Trial) -> None:
    """Frames with times that cannot be right."""
    device = trial.system.device(_THING, source="folder")
    device.start()
    now = time.time()
    for prefix, hours in (("ahead", 9.0), ("ago", -100.0), ("epoch", -now / _HOUR_SECONDS + 1)):
        for name, content in trial.make(10, prefix).items():
            device.put(name, content, modified_at=now + hours * _HOUR_SECONDS)


def malformed(trial: Trial) -> None:
    """What is no frame, each three times, among frames."""
    publisher = trial.system.cloud_client()
    by_topic = trial.system.device(_THING, source="topic", status_seconds=1)
    by_folder = trial.system.device(_SECOND, source="folder", status_seconds=1)
    by_topic.start()
    by_folder.start()
    picture = trial.scenes[0].content
    bad: dict[str, Callable[[], bytes]] = {
        "no JSON": lambda: b"{",
        "missing fields": lambda: json.dumps({"request_id": str(uuid4())}).encode(),
        "wrong fields": lambda: json.dumps({"request_id": 7, "filename": [], "encoded": None}).encode(),
        "bad base64": lambda: json.dumps(
            {"request_id": str(uuid4()), "filename": "bad.jpg", "encoded": "%%%"}
        ).encode(),
        "no picture": lambda: frame_message("text.jpg", b"this is no picture" * 20),
        "half a picture": lambda: frame_message("half.jpg", picture[: len(picture) // 2]),
    }
    for part, (name, content) in enumerate(trial.make(15, "topic").items()):
        publisher.send(_THING, frame_message(name, content))
        if part < 3:  # noqa: PLR2004 - as the docstring says
            for payload in bad.values():
                publisher.send(_THING, payload())
        if part == 3:  # noqa: PLR2004 - in the middle
            trial.checks["the broker refuses 20 MB"] = refuses_20_mb(trial.system)
    files = {"text.jpg": b"this is no picture" * 20, "large.jpg": picture + bytes(_TWENTY_MB), "empty.jpg": b""}
    files |= {f"half-{number}.jpg": picture[: len(picture) // 2] for number in range(3)}
    _put_all(by_folder, files)
    _put_all(by_folder, trial.make(15, "folder"))
    expected = 3 * len(bad)
    trial.checks["each message is counted"] = poll_until(lambda: _counted(by_topic, "malformed") == expected, 30)
    trial.checks["each file is counted"] = poll_until(lambda: _counted(by_folder, "malformed") == len(files) - 1, 30)
    kinds = Counter(line.get("kind") for line in by_topic.lines("frame_malformed"))
    say(f"  logged by kind: {dict(kinds)}")
    trial.checks["each kind of message is logged once"] = all(
        kinds[kind] == 1 for kind in ("message", "base64", "picture")
    )
    trial.once(by_folder, "frame_rejected", "file", least=2)
    rejected = sorted(path.name for path in (by_folder.frames / "rejected").iterdir())
    say(f"  kept: {rejected}")
    trial.checks["the files are kept"] = {"text.jpg", "large.jpg"} <= set(rejected)


def refuses_20_mb(system: EdgeSystem) -> bool:
    """Whether the broker ends the connection of a client that does not know its limit; MQTT 3 tells it to none."""
    certificate = system.broker.certificate(CLOUD)
    refused = threading.Event()
    connection = mqtt_connection_builder.mtls_from_path(
        str(certificate.certificate_file),
        str(certificate.key_file),
        endpoint="localhost",
        port=system.port,
        ca_filepath=str(system.broker.authority.ca_file),
        client_id="cloud-large",
        clean_session=True,
        on_connection_interrupted=lambda **_: refused.set(),
    )
    connection.connect().result(_LIMIT_SECONDS)
    connection.publish(frames_topic(_THING), bytes(_TWENTY_MB), mqtt.QoS.AT_LEAST_ONCE)
    try:
        return refused.wait(_LIMIT_SECONDS)
    finally:
        connection.disconnect().result(_LIMIT_SECONDS)


def same_id(trial: Trial) -> None:
    """A copy of the device's identity elsewhere, and a second process on the same state folder."""
    device = trial.system.device(_THING, source="folder")
    device.start()
    device.wait_for("iot_core_connected")
    twin = trial.system.state / "twin"
    (twin / "frames").mkdir(parents=True)
    (twin / "state").mkdir(mode=0o700)
    shutil.copy(device.state / "client-id", twin / "state" / "client-id")
    elsewhere = device.edge.model_copy(update={"state_dir": twin / "state", "folder": twin / "frames"})
    with trial.coming(device, 160):
        with Command(facerec("edge", "run"), edge_environ(device.edge)) as second:
            trial.checks["the state folder is locked"] = second.wait() != 0 and "another process" in second.output
        with Command(facerec("edge", "run"), edge_environ(elsewhere)) as other:
            other.wait_for("edge_ready")
            time.sleep(_AWAY_SECONDS)
            trial.checks["the twin goes on, too"] = other.process.poll() is None
    trial.once(device, "iot_core_connection_flapping", "problem")


FAULTS: dict[str, Callable[[Trial], None]] = {
    fault.__name__: fault for fault in (broker, component, both, spool_full, revoked, policy, clock, malformed, same_id)
}


def main() -> None:
    """Run them and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", choices=list(FAULTS))
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--tier", choices=["ec2", "serverless"], default="ec2", help="what recognises the faces")
    parser.add_argument("--logs", type=Path, help="folder for the processes' logs")
    options = parser.parse_args()
    prepare()
    rows = []
    for name in options.fault or FAULTS:
        say(name)
        with tempfile.TemporaryDirectory(prefix="facerec-edge-") as folder:
            people, photos = workload(options.images, Path(folder) / "people")
            state = Path(folder) / "state" if options.logs is None else options.logs / name
            pictures = [scaled(photo.path) for photo in photos[:10]]
            with EdgeSystem(state, tier=options.tier, things=(_THING, _SECOND)) as system:
                system.run("enrol", "--folder", str(people))
                system.start_cloud()
                rows.append(run(name, Trial(system, system.scenes(pictures))))
        print(json.dumps(rows[-1]), flush=True)
    sums = {name: sum(row[name] for row in rows) for name in _SUMS}
    passed = all(row["passed"] for row in rows)
    print(json.dumps({"faults": len(rows), **sums, "passed": passed, "tier": options.tier, "machine": machine()}))
    sys.exit(0 if passed else 1)


def run(name: str, trial: Trial) -> dict[str, Any]:
    """Inject one fault, and judge what became of the frames."""
    system, began = trial.system, time.monotonic()
    FAULTS[name](trial)
    wanted = {frame: scene for frame, scene in trial.frames.items() if frame not in trial.promised}
    answers = system.answers_by_name(wanted, _LIMIT_SECONDS)
    seconds = time.monotonic() - began
    left, dead = system.left_when_idle(_LIMIT_SECONDS), system.dead_letters()
    for frame, again in system.answers_by_name((), 1).items():
        answers.setdefault(frame, []).extend(again)
    verdict = Verdict()
    verdict.add(wanted, answers)
    strangers = answers.keys() - wanted.keys()
    if left or dead or strangers:
        say(f"{left} messages stay in the queues; dead letters: {dead}; answers to {sorted(strangers)}")
    row = {
        "fault": name,
        "frames": len(trial.frames),
        "answered": verdict.answered,
        "promised": len(trial.promised),
        "lost": verdict.lost,
        "wrong": verdict.wrong + left + len(dead) + len(strangers),
        "twice": verdict.twice,
        "ended": sum(device.ended_by_itself + (not device.runs()) for device in system.devices),
        "failed": [check for check, good in trial.checks.items() if not good],
        "checks": len(trial.checks),
        "seconds": round(seconds, 1),
    }
    return row | {"passed": not any(row[each] for each in _MUST_BE_NONE)}


if __name__ == "__main__":
    main()
