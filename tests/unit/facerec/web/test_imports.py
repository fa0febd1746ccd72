"""The web tier runs without the engine."""

import subprocess
import sys

SCRIPT = r"""
import sys
import model.header
import facerec.bootstrap, facerec.web.command, facerec.web.process, facerec.web.supervisor
from facerec.settings import Settings
from facerec.web.auth.access import AccessControl
from facerec.web.admission import Admission
from facerec.web.app import create_app
from facerec.web.fleet.traffic import Traffic
from facerec.web.fleet.watch import FleetWatch
from facerec.web.inbox import Waiters
from facerec.web.metrics import WebMetrics
from facerec.web.readiness import Readiness
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.task_queue import InMemoryTaskQueue

facerec.bootstrap.task_queue(Settings())
assert model.header.read_header(b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x1d\xc0\x04\0\0\0\0").width == 30
measured = WebMetrics()
create_app(
    settings=Settings(), store=InMemoryObjectStore(), queue=InMemoryTaskQueue(), reply_to="facerec-resp-queue",
    people=facerec.bootstrap.enrolled_people(Settings()), records=facerec.bootstrap.person_records(Settings()),
    erasures=facerec.bootstrap.erasures(Settings()),
    collections=facerec.bootstrap.collections(Settings()),
    waiters=Waiters(), admission=Admission(max_waiting=1, wait_seconds=1), readiness=Readiness({}),
    unknown=facerec.bootstrap.unknown_people(Settings()),
    jobs=facerec.bootstrap.jobs(Settings()), measured=measured, access=AccessControl(Settings().web, None),
    fleet=FleetWatch(
        read_depth=facerec.bootstrap.queue_depth(Settings()), history=facerec.bootstrap.fleet_history(Settings()),
        traffic=Traffic(measured.upload_totals),
    ),
)
heavy = {"numpy", "cv2", "PIL", "torch", "openvino", "onnx", "onnxruntime", "model.engines", "tasks", "facerec.engine"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_web_tier_loads_neither_a_decoder_nor_an_engine_nor_the_tasks() -> None:
    """A web instance has none of them installed, and native code sees no stranger's picture there."""
    loaded = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
