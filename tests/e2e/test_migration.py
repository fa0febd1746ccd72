"""A change of the model under a stream of uploads: embedded through the queue, switched, and taken back."""

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from model.artefact import Artefact
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, facerec

EXAMPLES = CHECKOUT / "examples"
PROBES = {"image_01.jpg": "Barack Obama", "image_02.jpg": "Unknown", "image_03.jpg": "Joe Biden"}
PHOTOS = 5
"""Of each person."""


class Uploads:
    """One upload after the other, with what the service answered."""

    def __init__(self, system: LocalSystem) -> None:
        self._system = system
        self.answers = Counter[tuple[int, str]]()
        self.models = Counter[str]()
        self._stopped = threading.Event()

    def one(self, filename: str) -> str:
        """Upload a probe; returns the model that answered."""
        body = (EXAMPLES / "probes" / filename).read_bytes()
        with httpx.Client(base_url=self._system.url, trust_env=False, timeout=60) as client:
            reply = client.post("/", files={"inputFile": (filename, body)})
            self.answers[reply.status_code, reply.text.strip()] += 1
            model_id = str(client.get(f"/api/v1/results/{reply.headers['x-request-id']}").json()["model_id"])
        self.models[model_id] += 1
        return model_id

    @contextmanager
    def running(self) -> Iterator[None]:
        """Upload all the time within the block."""

        def upload() -> None:
            while not self._stopped.is_set():
                for filename in PROBES:
                    self.one(filename)

        thread = threading.Thread(target=upload)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()


@pytest.fixture
def migrated(artefact_dir: Path, tmp_path: Path) -> Iterator[LocalSystem]:
    """A system of its own, for its model changes."""
    environ = {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_MODEL__CACHE_DIR": str(tmp_path / "cache"),
        "FACEREC_MODEL__LICENCE": "research",
        "FACEREC_REPLY_STYLE": "name",
        "FACEREC_GALLERY__REFRESH_SECONDS": "1",
    }
    with LocalSystem(tmp_path / "system", environ=environ) as system:
        yield system


def people(folder: Path) -> Path:
    """Photos of the people of the examples, each a file of its own."""
    for person in (EXAMPLES / "gallery").iterdir():
        (folder / person.name).mkdir(parents=True)
        (source, *_) = sorted(person.iterdir())
        for number in range(PHOTOS):
            file = BytesIO()
            Image.open(source).convert("RGB").save(file, "JPEG", quality=95 - number)
            (folder / person.name / f"{number}.jpg").write_bytes(file.getvalue())
    return folder


def test_model_changes_and_returns_without_a_failed_request(
    migrated: LocalSystem,
    artefact_dir: Path,
    accurate_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run of `migrate` is killed; every upload gets the right answer, before, meanwhile and afterwards."""
    system, old, new = migrated, Artefact.load(artefact_dir).model_id, Artefact.load(accurate_dir).model_id
    system.run("enrol", "--folder", str(people(tmp_path / "people")), "--no-look-alikes")
    uploads = Uploads(system)
    known = (200, "image_01:Barack Obama")
    assert poll_until(lambda: uploads.one("image_01.jpg") == old and known in uploads.answers, 30)
    uploads.answers.clear()
    for name, value in system.environ.items():
        if name.startswith(("AWS_", "FACEREC_")):
            monkeypatch.setenv(name, value)
    settings = Settings.load()
    templates = DynamoTemplateStore(Clients(settings), settings.templates_table)

    def embedded(model_id: str) -> int:
        return sum(entry.model_id == model_id for entry in templates.entries("default"))

    with uploads.running():
        arguments = ("model", "migrate", "--model-dir", str(accurate_dir), "--window", "1", "--json")
        first = subprocess.Popen(facerec(*arguments), cwd=CHECKOUT, env=system.environ)
        assert poll_until(lambda: embedded(new) >= 2, 120)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert embedded(new) < 2 * PHOTOS
        refused = system.run("model", "push", "--dir", str(accurate_dir), check=False)
        assert refused.returncode == 1
        assert "the workers serve" in refused.stderr

        report = json.loads(system.run(*arguments).stdout)
        assert report["not_done"] == []
        assert sum(report["counts"].values()) < 2 * PHOTOS
        (comparison,) = report["comparisons"]
        assert (comparison["probes"], comparison["people"], comparison["agreement"]) == (2 * PHOTOS, 2, 1.0)
        assert [comparison[model]["right"] for model in ("old", "new")] == [2 * PHOTOS] * 2
        assert embedded(new) == embedded(old) == 2 * PHOTOS
        assert set(uploads.models) == {old}

        assert "is in use" in system.run("model", "switch").stdout
        assert uploads.one("image_03.jpg") == new
        late = system.run("enrol", "Late Comer", str(EXAMPLES / "probes" / "image_02.jpg"), check=False)
        assert f"the workers serve {new}" in late.stderr

        assert "is in use" in system.run("model", "switch", "--back").stdout
        assert uploads.one("image_03.jpg") == old
    assert set(uploads.answers) == {(200, f"{Path(name).stem}:{person}") for name, person in PROBES.items()}
