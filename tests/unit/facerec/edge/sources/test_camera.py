"""The camera's rate limit, its settings, and its name in the log."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.edge.counters import Counters
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.opening import source_of
from facerec.edge.sources.camera import CameraSource, RateLimit, without_secrets
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.fakes.link import InMemoryBroker, InMemoryLink


@given(st.floats(0.5, 200), st.lists(st.floats(0, 1), max_size=200))
def test_rate_limit_holds_over_any_time(per_second: float, gaps: list[float]) -> None:
    """Two frames at once, and then no more than the rate."""
    limit, now, allowed = RateLimit(per_second), 0.0, 0
    for gap in gaps:
        now += gap
        allowed += limit.allows(now)
    assert allowed <= 2 + now * per_second + 1e-6


@given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=100))
def test_camera_at_the_limit_loses_no_frame_to_jitter(jitter: list[float]) -> None:
    """Each frame may come a little early or late."""
    limit = RateLimit(10)
    assert all(limit.allows((number + early) / 9.9) for number, early in enumerate(jitter))


@pytest.mark.parametrize(
    ("camera", "shown"),
    [
        ("0", "0"),
        ("/dev/video0", "/dev/video0"),
        ("rtsp://admin:pass@10.0.0.9:554/live?key=1", "rtsp://10.0.0.9:554/live"),
        ("http://a:b@c@[::1]:80/x", "http://[::1]:80/x"),
        ("rtsp://admin:pass@[10.0.0.9/live", "rtsp://…"),
    ],
)
def test_camera_is_logged_without_secrets(camera: str, shown: str) -> None:
    """A password is often part of the URL."""
    assert without_secrets(camera) == shown


def test_camera_is_made_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not opened before it runs."""
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr("facerec.edge.sources.camera.CameraSource", lambda *given: made.append(given))
    settings = Settings(edge=EdgeSettings(source="camera", camera="3", max_frames_per_second=2.5))
    counters = Counters()
    source_of(settings, "door", InMemoryLink(InMemoryBroker(), "door"), counters)
    assert made == [("3", 2.5, counters)]


@pytest.mark.parametrize("camera", ["9" * 20, "rtsp://admin:pass@[10.0.0.9/live"])
def test_camera_that_cannot_be_one_is_a_problem_and_no_error(camera: str) -> None:
    """A deployment may set it while the component runs, which must go on."""
    counters, stopping = Counters(), threading.Event()

    def stop_instead(_failures: int, _jitter: float) -> float:
        stopping.set()
        return 0.0

    source = CameraSource(camera, 5, counters, backoff=stop_instead)
    source.run(FrameQueue(2, counters), stopping)
    assert source.problem == "the camera cannot be opened"
