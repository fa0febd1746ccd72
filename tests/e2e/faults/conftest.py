"""A whole system with a proxy before its AWS, on the fake engine, and a crowd of clients to be disturbed."""

import itertools
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.engine import SEGFAULT
from tests.fakes.web_tier import picture
from tests.support.artefacts import write_artefact
from tests.support.faults.clients import Crowd, Harmful, Photo, Story, upload_under
from tests.support.faults.rig import Processes, Rig
from tests.support.faults.verdict import Ledger, Row, at_rest, judge, remains

UNKNOWN = "Unknown"
"""What the fake engine's faces are with nobody enrolled."""
_REST_SECONDS = 90


class Disturbed:
    """The system, its clients, and what became of them; every photo's fake face is as wide as the photo has bytes."""

    def __init__(self, rig: Rig, ledger: Ledger) -> None:
        self.rig = rig
        self._ledger = ledger
        self._lengths = itertools.count(1)

    def photos(self, poisoned: int = 0) -> Iterator[Photo]:
        """Photos of distinct lengths and names; every `poisoned`-th kills the engine."""
        body = picture()
        for number in itertools.count(1):
            length = next(self._lengths)
            poison = poisoned > 0 and number % poisoned == 0
            padded = body + bytes(length) + (SEGFAULT if poison else b"")
            yield Photo(f"photo{length:05d}.jpg", padded, None if poison else UNKNOWN)

    def suffer(
        self, harm: Harmful, least: int = 20, *, per_second: float = 10, lasts: bool = False, poisoned: int = 0
    ) -> tuple[list[Story], Row]:
        """Upload while harm is done, wait until nothing moves any more, and count what became of the photos."""
        self.rig.proxy.harmed.clear()
        crowd = Crowd(self.rig.url, per_second, patience_seconds=90, longest_pause_seconds=1)
        stories = upload_under(harm, self.rig, crowd, self.photos(poisoned), least, lasts=lasts)
        assert at_rest(self.rig, _REST_SECONDS), "something still moves"
        left = remains(self.rig)
        told: list[str] = []
        row = judge(stories, left, self._ledger.ids(), told.append)
        row["told_of"] = told
        lengths = {story.photo.filename: len(story.photo.body) for story in stories}
        found = [result for results in left.outputs.values() for result in results if result["filename"] in lengths]
        for result in found:
            widths = [face["box"]["x_max"] for face in result["faces"]]
            assert widths == ([lengths[result["filename"]]] if result["outcome"] != "failed" else [])
        return stories, row


@pytest.fixture(scope="package")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    """One system for all faults: each must leave it in order for the next."""
    folder = tmp_path_factory.mktemp("faults")
    write_artefact(folder / "model")
    environ = {
        "FACEREC_MODEL__DIR": str(folder / "model"),
        "FACEREC_MODEL__CACHE_DIR": str(folder / "cache"),
        "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "3",
        "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "4",
        # On a busy machine such a short timeout passes before a heartbeat: that alone must not kill a message.
        "FACEREC_QUEUE__MAX_RECEIVES": "20",
        "FACEREC_QUEUE__WAIT_TIME_SECONDS": "2",
        "FACEREC_WEB__WAIT_SECONDS": "100",
    }
    processes = Processes(worker=(sys.executable, "-m", "tests.fakes.worker"), environ=environ)
    with Rig(folder, processes) as rig:
        rig.start_tiers()
        ledger = Ledger(f"{rig.prefix}-req-queue")
        rig.proxy.on_answer = ledger.note
        yield Disturbed(rig, ledger)
