"""`facerec edge run`: the real command with the real model, and a real broker."""

import base64
import json
import os
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from facerec.edge_messages import EdgeFaces, FrameMessage, frames_topic, results_topic
from facerec.messages import Outcome, RecognitionResult
from facerec.processes.addresses import poll_until
from tests.support.device_cloud import DeviceCloud
from tests.support.faceless import faceless
from tests.support.mosquitto import Mosquitto, find_mosquitto
from tests.support.pictures import PORTRAIT
from tests.support.processes import Command, facerec, run

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

THING = "door-1"
SECONDS = 60
NO_FACE = next(iter(faceless(sizes=[(250, 250)]).values()))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that runs."""
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as running:
        yield running


@pytest.fixture
def cloud(broker: Mosquitto) -> Iterator[DeviceCloud]:
    """The other end."""
    made = DeviceCloud(broker, THING)
    yield made
    made.close()


@pytest.fixture
def environ(broker: Mosquitto, artefact_dir: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a device whose frames are in a folder."""
    settings = broker.settings(THING, state_dir=tmp_path / "state", source="folder", folder=tmp_path / "frames")
    (tmp_path / "frames").mkdir()
    fields = settings.model_dump(mode="json", exclude_unset=True)
    return {
        **os.environ,
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_LOG__FORMAT": "json",
        **{f"FACEREC_EDGE__{name.upper()}": str(value) for name, value in fields.items()},
    }


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """The folder of the frames."""
    return tmp_path / "frames"


def put(folder: Path, name: str, content: bytes) -> None:
    """Write a frame as a program should: elsewhere first."""
    hidden = folder / f".{name}"
    hidden.write_bytes(content)
    hidden.rename(folder / name)


def started(environ: Mapping[str, str]) -> Command:
    """The command, ready."""
    command = Command(facerec("edge", "run"), environ)
    command.wait_for("edge_ready")
    return command


def test_frames_of_a_folder_are_answered(environ: dict[str, str], frames: Path, cloud: DeviceCloud) -> None:
    """A face with its crop, `No-Face` without one; the files are removed, and the status says what happened."""
    with started(environ) as command:
        put(frames, "portrait.jpg", PORTRAIT.read_bytes())
        put(frames, "nobody.jpg", NO_FACE)
        cloud.wait_for_names("portrait.jpg", "nobody.jpg")
        assert command.stop() == 0
    found = {each["filename"]: each for each in cloud.messages}
    face = EdgeFaces.parse(json.dumps(found["portrait.jpg"]))
    assert (face.thing, face.face_index, face.more_faces) == (THING, 0, 0)
    nobody = RecognitionResult.parse(json.dumps(found["nobody.jpg"]))
    assert (nobody.result, nobody.outcome, nobody.thing) == ("No-Face", Outcome.NO_FACE, THING)
    assert list(frames.iterdir()) == []
    assert cloud.wait_for_status("starting")["model_id"] is None
    last = cloud.wait_for_status("stopped")
    assert (last["model_id"], last["spool"]["messages"], last["reasons"]) == (face.model_id, 0, [])
    counters = last["counters"]
    assert (counters["frames"], counters["faces"], counters["no_face"], counters["messages"]) == (2, 1, 1, 2)


def test_frames_survive_a_dead_broker_and_kill(
    environ: dict[str, str], frames: Path, broker: Mosquitto, cloud: DeviceCloud
) -> None:
    """Killed in the middle, without a connection, and started again: every frame is answered."""
    portrait = PORTRAIT.read_bytes()
    names = [f"frame-{number:02}.jpg" for number in range(30)]
    broker.stop()
    with started(environ) as command:
        for name in names:
            put(frames, name, portrait)
        assert poll_until(lambda: len(list(frames.iterdir())) <= len(names) // 2, SECONDS)
        command.process.send_signal(signal.SIGKILL)
        command.wait()
    assert cloud.messages == []
    broker.start()
    with started(environ) as command:
        cloud.wait_for_names(*names)
        assert command.stop() == 0
    order = list(dict.fromkeys(each["filename"] for each in cloud.messages))
    assert order == names
    assert len(cloud.messages) <= len(names) + 1


def test_frames_of_the_topic_are_answered_and_results_logged(environ: dict[str, str], cloud: DeviceCloud) -> None:
    """A frame that is sent while the component is away waits for it at the broker."""
    variables = environ | {"FACEREC_EDGE__SOURCE": "topic", "FACEREC_EDGE__RESULTS": "true"}

    def frame(name: str) -> UUID:
        message = FrameMessage(
            request_id=uuid4(), filename=name, encoded=base64.b64encode(PORTRAIT.read_bytes()).decode("ascii")
        )
        cloud.publish(frames_topic(THING), message.to_json())
        return message.request_id

    with started(variables) as command:
        request_id = frame("first.jpg")
        cloud.wait_for_names("first.jpg")
        result = RecognitionResult(
            request_id=request_id,
            result="Jane",
            filename="first.jpg",
            outcome=Outcome.MATCH,
            completed_at=datetime.now(UTC),
        )
        cloud.publish(results_topic(THING), result.to_json())
        logged = json.loads(command.wait_for('"edge_result"'))
        assert (logged["request_id"], logged["filename"], logged["result"]) == (str(request_id), "first.jpg", "Jane")
        assert command.stop() == 0
    assert cloud.messages[0]["request_id"] == str(request_id)
    assert cloud.messages[0]["results"] is True
    frame("second.jpg")
    with started(variables) as command:
        cloud.wait_for_names("second.jpg")
        assert command.stop() == 0


def test_second_process_is_refused(environ: dict[str, str]) -> None:
    """With one sentence; the first one goes on."""
    with started(environ) as command:
        second = run("edge", "run", environ=environ)
        assert second.returncode == 1
        assert "another process uses the state folder" in second.stderr.splitlines()[-1]
        assert command.stop() == 0


def test_key_that_others_may_read_is_refused(environ: dict[str, str]) -> None:
    """The sentence has the command that mends it."""
    key = Path(environ["FACEREC_EDGE__KEY_FILE"])
    key.chmod(0o644)
    ended = run("edge", "run", environ=environ)
    assert ended.returncode == 1
    assert f"run `chmod 600 {key}`" in ended.stderr.splitlines()[-1]


def test_missing_model_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    """With what makes one."""
    ended = run("edge", "run", environ=environ | {"FACEREC_MODEL__DIR": str(tmp_path / "none")})
    assert ended.returncode == 1
    assert "facerec model build" in ended.stderr.splitlines()[-1]


def test_health_is_that_of_the_component(environ: dict[str, str], frames: Path) -> None:
    """It succeeds while the component works, also without a connection, and fails once it has ended."""
    environ["FACEREC_EDGE__PORT"] = "1"
    before = run("edge", "health", environ=environ)
    assert (before.returncode, before.stdout) == (1, "")
    assert "no component has written" in before.stderr
    with started(environ) as command:
        put(frames, "portrait.jpg", PORTRAIT.read_bytes())
        assert poll_until(lambda: not list(frames.iterdir()), SECONDS)
        shown = run("edge", "health", environ=environ)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(f"{THING} is ")
        assert "not connected" in shown.stdout
        assert command.stop() == 0
    after = run("edge", "health", environ=environ)
    assert after.returncode == 1
    assert "the component is stopped" in after.stderr
