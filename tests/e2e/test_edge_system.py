"""The edge as a whole: a device, a broker that is killed, the rules, and a worker that recognises the faces."""

import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest

from facerec.processes.addresses import poll_until
from tests.support.edge_device import EdgeDevice
from tests.support.edge_system import CloudClient, EdgeSystem, Scene, empty_scenes, frame_message, named, scaled
from tests.support.mosquitto import find_mosquitto
from tests.support.pictures import PORTRAIT
from tests.support.processes import CHECKOUT

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

SECONDS = 60.0
PROBES = sorted((CHECKOUT / "examples/probes").glob("*.jpg"))
_prefixes = (f"test-{number}" for number in count())


@pytest.fixture(scope="module")
def system(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeSystem]:
    """Everything but the devices and the worker, with the sample people enrolled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEREC_MODEL__DIR", str(artefact_dir))
        with EdgeSystem(tmp_path_factory.mktemp("edge"), things=("gate", "yard")) as running:
            running.run("enrol", "--folder", "examples/gallery")
            yield running


@pytest.fixture(scope="module")
def cloud(system: EdgeSystem) -> CloudClient:
    """A client of the broker."""
    return system.cloud_client()


@pytest.fixture(scope="module")
def gate(system: EdgeSystem) -> EdgeDevice:
    """A device that takes frames from its topic."""
    device = system.device("gate", source="topic")
    device.start()
    return device


@pytest.fixture(scope="module")
def yard(system: EdgeSystem) -> EdgeDevice:
    """A device that takes frames from its folder."""
    device = system.device("yard", source="folder")
    device.start()
    return device


@pytest.fixture(scope="module")
def scenes(system: EdgeSystem) -> list[Scene]:
    """The sample photos as frames, with the worker's answers to the whole frames."""
    system.start_cloud()
    return system.scenes([scaled(probe) for probe in PROBES])


def frames_of(scenes: list[Scene], number: int) -> dict[str, Scene]:
    """Frames whose names no other test has."""
    return named(scenes, number, next(_prefixes))


def answers(system: EdgeSystem, frames: Mapping[str, Scene]) -> dict[str, set[str]]:
    """The answers to the frames, which came or not."""
    found = system.answers_by_name(frames, SECONDS)
    return {name: {answer.result["result"] for answer in said} for name, said in found.items()}


def right(frames: Mapping[str, Scene]) -> dict[str, set[str]]:
    """The answers that are right."""
    return {name: {scene.answer} for name, scene in frames.items()}


def put(device: EdgeDevice, frames: Mapping[str, Scene]) -> None:
    """Let a device have frames in its folder."""
    for name, scene in frames.items():
        device.put(name, scene.content)


def test_frame_without_a_face_is_answered_without_a_queue(
    system: EdgeSystem, cloud: CloudClient, gate: EdgeDevice
) -> None:
    """Nothing takes messages of the request queue and the faces queue yet: both stay empty."""
    frames = frames_of(empty_scenes(5), 5)
    for name, scene in frames.items():
        cloud.send("gate", frame_message(name, scene.content))
    assert answers(system, frames) == right(frames)
    assert set(system.counts().values()) == {0}


def test_what_is_no_frame_is_logged_once_and_stops_nothing(
    system: EdgeSystem, cloud: CloudClient, gate: EdgeDevice, scenes: list[Scene]
) -> None:
    """Frames before and after it are answered."""
    half = PORTRAIT.read_bytes()[:20_000]
    frames = frames_of(scenes, 4)
    for name, scene in frames.items():
        cloud.send("gate", b"{")
        cloud.send("gate", json.dumps({"filename": "no-id.jpg"}).encode())
        cloud.send("gate", frame_message("half.jpg", half))
        cloud.send("gate", frame_message(name, scene.content))
    assert answers(system, frames) == right(frames)
    assert [line["kind"] for line in gate.lines("frame_malformed") if "kind" in line] == ["message"]
    assert gate.stop() == 0
    assert gate.last_status()["counters"]["malformed"] == 3 * len(frames)


def test_nothing_is_lost_when_broker_and_device_are_killed(
    system: EdgeSystem, yard: EdgeDevice, scenes: list[Scene]
) -> None:
    """The device is started again while the broker is away, and gets frames meanwhile."""
    before, while_away = frames_of(scenes, 15), frames_of(scenes, 15)
    yard.wait_for("iot_core_connected")
    put(yard, before)
    assert poll_until(lambda: yard.waiting() < len(before), SECONDS)
    system.broker.kill()
    yard.kill()
    put(yard, while_away)
    yard.start()
    assert poll_until(lambda: yard.waiting() == 0, SECONDS)
    system.broker.start()
    frames = before | while_away
    assert answers(system, frames) == right(frames)
    assert (system.left_when_idle(), system.dead_letters()) == (0, {})
    assert yard.ended_by_itself == 0
