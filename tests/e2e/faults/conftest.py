"""A whole system on the fake engine with a proxy before its AWS, and the clients that upload to it."""

import itertools
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.engine import SEGFAULT
from tests.fakes.web_tier import picture
from tests.support.artefacts import write_artefact
from tests.support.faults.clients import ClientOutcome, FaultAction, Photo, UploadClients, upload_under
from tests.support.faults.outcomes import AcceptedTasks, Row, final_state, judge, wait_until_idle
from tests.support.faults.proxied_system import Processes, ProxiedSystem

UNKNOWN = "Unknown"
"""The name of the fake engine's faces, since no person is enrolled."""
_REST_SECONDS = 90


class FaultySystem:
    """The system, its clients and their outcomes. The fake face of a photo is as wide as the photo has bytes."""

    def __init__(self, system: ProxiedSystem, accepted_tasks: AcceptedTasks) -> None:
        self.system = system
        self._ledger = accepted_tasks
        self._lengths = itertools.count(1)

    def photos(self, poisoned: int = 0) -> Iterator[Photo]:
        """Photos of distinct lengths and names; every `poisoned`-th kills the engine."""
        body = picture()
        for number in itertools.count(1):
            length = next(self._lengths)
            poison = poisoned > 0 and number % poisoned == 0
            padded = body + bytes(length) + (SEGFAULT if poison else b"")
            yield Photo(f"photo{length:05d}.jpg", padded, None if poison else UNKNOWN)

    def upload_during(
        self, harm: FaultAction, least: int = 20, *, per_second: float = 10, lasts: bool = False, poisoned: int = 0
    ) -> tuple[list[ClientOutcome], Row]:
        """Upload while the fault lasts, wait until the queues are empty, and count the outcomes of the photos."""
        self.system.proxy.harmed.clear()
        clients = UploadClients(self.system.url, per_second, give_up_seconds=90, longest_pause_seconds=1)
        outcomes = upload_under(harm, self.system, clients, self.photos(poisoned), least, lasts=lasts)
        assert wait_until_idle(self.system, _REST_SECONDS), "the queues are not empty"
        left = final_state(self.system)
        told: list[str] = []
        row = judge(outcomes, left, self._ledger.ids(), told.append)
        row["told_of"] = told
        lengths = {outcome.photo.filename: len(outcome.photo.body) for outcome in outcomes}
        found = [result for results in left.outputs.values() for result in results if result["filename"] in lengths]
        for result in found:
            widths = [face["box"]["x_max"] for face in result["faces"]]
            assert widths == ([lengths[result["filename"]]] if result["outcome"] != "failed" else [])
        return outcomes, row


@pytest.fixture(scope="package")
def faulty_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultySystem]:
    """One system for all faults. After each it must work for the next one."""
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
    with ProxiedSystem(folder, processes) as system:
        system.start_tiers()
        accepted_tasks = AcceptedTasks(f"{system.prefix}-req-queue")
        system.proxy.on_answer = accepted_tasks.note
        yield FaultySystem(system, accepted_tasks)
