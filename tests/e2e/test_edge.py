"""The component on a device, started as a user starts it, over a real broker."""

import base64
import os
import signal
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from facerec.edge_messages import FrameMessage, frames_topic
from tests.support.device_cloud import DeviceCloud
from tests.support.faceless import faceless
from tests.support.mosquitto import Mosquitto, find_mosquitto
from tests.support.pictures import PORTRAIT
from tests.support.processes import Command, facerec

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

THING = "door-1"
IN_FLIGHT = 3
AT_A_TIME = 4
"""Frames that come before each start."""


class Device:
    """A device, its broker, and the cloud behind that. Every second frame has no face."""

    def __init__(self, folder: Path, artefact_dir: Path, source: str) -> None:
        (folder / "broker").mkdir()
        self.broker = Mosquitto(folder / "broker")
        self.broker.start()
        self.cloud = DeviceCloud(self.broker, THING)
        self.frames = folder / "frames"
        self.frames.mkdir()
        self.names: list[str] = []
        self._pictures = PORTRAIT.read_bytes(), next(iter(faceless(sizes=[(250, 250)]).values()))
        self._by_topic = source == "topic"
        settings = self.broker.settings(
            THING, state_dir=folder / "state", source=source, folder=self.frames, in_flight=IN_FLIGHT
        )
        fields = settings.model_dump(mode="json", exclude_unset=True)
        self.environ = {
            **os.environ,
            "FACEREC_MODEL__DIR": str(artefact_dir),
            "FACEREC_LOG__FORMAT": "json",
            **{f"FACEREC_EDGE__{name.upper()}": str(value) for name, value in fields.items()},
        }

    def put_frames(self) -> None:
        """Have some more frames come: to the folder, or to the broker."""
        for _ in range(AT_A_TIME):
            name, picture = f"frame-{len(self.names):03}.jpg", self._pictures[len(self.names) % 2]
            self.names.append(name)
            if self._by_topic:
                encoded = base64.b64encode(picture).decode("ascii")
                message = FrameMessage(request_id=uuid.uuid4(), filename=name, encoded=encoded)
                self.cloud.publish(frames_topic(THING), message.to_json())
            else:
                (self.frames / f".{name}").write_bytes(picture)
                (self.frames / f".{name}").rename(self.frames / name)

    def close(self) -> None:
        """End the broker."""
        self.cloud.close()
        self.broker.stop()


@pytest.fixture
def device(request: pytest.FixtureRequest, tmp_path: Path, artefact_dir: Path) -> Iterator[Device]:
    """A device whose frames come from the source of the parameter."""
    made = Device(tmp_path, artefact_dir, request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("device", "steps"),
    [
        ("folder", ["looked at", "spooled", "file removed", "sent", "acknowledged"]),
        ("topic", ["spooled", "frame acknowledged"]),
    ],
    indirect=["device"],
)
def test_device_that_is_killed_at_any_step_answers_every_frame(device: Device, steps: list[str]) -> None:
    """Each in its order, under one request id, and with the same answer; some of them twice."""
    if device._by_topic:
        with Command(facerec("edge", "run"), device.environ) as command:
            command.wait_for("edge_ready")  # from now on the broker keeps what is sent to the device
            assert command.stop() == 0
    for step in steps:
        device.put_frames()
        killed = (sys.executable, "-m", "tests.support.faults.killed_edge", step)
        with Command(killed, device.environ) as command:
            assert command.wait() == -signal.SIGKILL, command.output
    device.put_frames()
    with Command(facerec("edge", "run"), device.environ) as command:
        device.cloud.wait_for_names(*device.names)
        assert command.stop() == 0
    messages = device.cloud.messages
    assert list(dict.fromkeys(each["filename"] for each in messages)) == device.names
    answers = defaultdict(set)
    for each in messages:
        answers[each["filename"]].add((each["request_id"], each.get("result")))
    assert all(len(answer) == 1 for answer in answers.values())
    assert [next(iter(answers[name]))[1] for name in device.names[:2]] == [None, "No-Face"]
    assert len({request_id for answer in answers.values() for request_id, _ in answer}) == len(device.names)
    assert len(messages) <= len(device.names) + len(steps) * (IN_FLIGHT + 1)
    assert list(device.frames.iterdir()) == []
    assert device.cloud.wait_for_status("stopped")["spool"]["messages"] == 0


@pytest.mark.parametrize("device", ["camera"], indirect=True)
def test_person_before_the_camera_is_sent_once(device: Device, tmp_path: Path) -> None:
    """Of two seconds of video; the other frames are not sent, and no frame leaves the device."""
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None
    height, width = picture.shape[:2]
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 15, (width, height))
    for step in range(30):
        writer.write(np.roll(picture, step, axis=1))
    writer.release()
    with Command(facerec("edge", "run"), device.environ | {"FACEREC_EDGE__CAMERA": str(video)}) as command:
        command.wait_for("video_ended")
        assert command.stop() == 0
    (message,) = device.cloud.messages
    assert message["filename"].startswith("camera-")
    assert message["other_faces"] == []
    counters = device.cloud.wait_for_status("stopped")["counters"]
    assert counters["faces"] == counters["messages"] == 1
    assert counters["frames"] == counters["dropped"] + counters["suppressed"] + 1 == 30
