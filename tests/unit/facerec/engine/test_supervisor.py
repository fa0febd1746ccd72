"""The supervised engine, with a fake engine in real child processes."""

import errno
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from facerec.engine.image_queue import QueuedImage
from facerec.engine.supervisor import SupervisedEmbedder, SupervisedEngine
from facerec.errors import ConfigurationError, EngineFailure, Transient
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings
from model.faces import Box, ImageAnalysis, JpegFaces, MeasuredFace, PictureFaces
from model.header import InvalidImage
from tests.fakes import engine as fake

GOOD = [b"a" * size for size in range(1, 8)]

Analyse = Callable[[bytes], "Future[ImageAnalysis]"]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for answers, as the worker's tasks do."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        yield pool


def make(folder: Path, *, engines: int = 1, limit_seconds: float = 20, batch_max: int = 8) -> SupervisedEngine:
    """An engine, not yet started, whose children run the fake."""
    worker = WorkerSettings(engines=engines, task_time_limit_seconds=limit_seconds, batch_max=batch_max)
    return SupervisedEngine(Settings(worker=worker), folder, factory=fake.FACTORY)


def batch_together(
    engine: SupervisedEngine | SupervisedEmbedder, callers: ThreadPoolExecutor, images: list[Any]
) -> list[Future[ImageAnalysis]]:
    """Submit images, or faces, so that they wait together: they are queued before the engine's start."""

    def call(image: Any) -> ImageAnalysis:
        if isinstance(engine, SupervisedEngine) and isinstance(image, bytes):
            return engine.analyse(image)
        return engine.embed(image)

    queued = threading.Semaphore(0)
    put = engine._queue.put

    def put_and_tell(image: QueuedImage) -> None:
        put(image)
        queued.release()

    engine._queue.put = put_and_tell  # type: ignore[method-assign]  # the test listens in
    futures = []
    for image in images:
        futures.append(callers.submit(call, image))
        queued.acquire()
    engine.start()
    return futures


def gone(pid: int) -> bool:
    """Whether no process of that id is left, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_answer_goes_to_its_caller(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Also with many callers at once."""
    with closing(make(tmp_path, engines=2)) as engine:
        engine.start()
        images = [b"x" * size for size in range(1, 60)]
        widths = [found.width for found in callers.map(engine.analyse, images)]
    assert widths == [len(image) for image in images]


def test_engine_names_its_model(tmp_path: Path) -> None:
    """Name, precision and model are those of the children."""
    with closing(make(tmp_path)) as engine:
        engine.start()
        assert (engine.name, engine.precision, engine.model_id) == ("fake", "fp32", "fake-model")


def test_replacement_keeps_the_precision(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """`auto` is decided once."""
    with closing(make(tmp_path)) as engine:
        engine.start()
        with pytest.raises(EngineFailure):
            engine.analyse(fake.EXIT)
        engine.analyse(b"next")
    first, *replacements = fake.notes(tmp_path, fake.PRECISIONS)
    assert first == "auto"
    assert set(replacements) == {"fp32"}


def test_child_loads_once(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Also for many images."""
    with closing(make(tmp_path, engines=2)) as engine:
        engine.start()
        list(callers.map(engine.analyse, GOOD * 3))
    assert len(fake.notes(tmp_path, fake.STARTS)) == 2


def test_default_is_one_child_per_available_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs to be set."""
    monkeypatch.setattr("facerec.engine.supervisor.available_cores", lambda: 3)
    with closing(make(tmp_path, engines=0)) as engine:
        engine.start()
    assert len(fake.notes(tmp_path, fake.STARTS)) == 3


def test_large_images_form_separate_batches(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Their headers are read before the children decode them."""
    file = BytesIO()
    Image.new("L", (3000, 2000)).save(file, "PNG")
    with closing(make(tmp_path)) as engine:
        for future in batch_together(engine, callers, [*GOOD[:2], file.getvalue(), file.getvalue(), *GOOD[2:4]]):
            future.result()
    assert fake.notes(tmp_path, fake.BATCHES) == ["3", "3"]


def test_faces_of_group_photos_form_separate_batches(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Each face takes its time, and a batch has a time limit."""

    def faces(count: int) -> PictureFaces:
        face = MeasuredFace(Box(0, 0, 1, 1), 0.9, ((0.0, 0.0),) * 5, ())
        return PictureFaces(1, 1, (face,) * count, np.zeros((count, 1, 1, 3), np.uint8), {})

    settings = Settings(worker=WorkerSettings(engines=1))
    with closing(SupervisedEmbedder(settings, tmp_path, factory=fake.FACTORY)) as engine:
        for future in batch_together(engine, callers, [faces(1), faces(1), faces(20), faces(20), faces(100)]):
            future.result()
    assert fake.notes(tmp_path, fake.BATCHES) == ["3", "1", "1"]


def test_photos_and_faces_share_batches_and_children(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """A worker takes both; what is wrong with one of them harms no other."""
    face = MeasuredFace(Box(1, 2, 3, 4), 0.9, ((0.0, 0.0),) * 5, ())
    packed = PictureFaces(20, 10, (face, face), np.zeros((2, 1, 1, 3), np.uint8), {}, more_faces=3)
    with closing(make(tmp_path)) as engine:
        photo, faces, jpeg, invalid, crash = batch_together(
            engine,
            callers,
            [
                b"a photo",
                packed,
                JpegFaces(30, 10, (face,), (b"a crop",)),
                JpegFaces(30, 10, (face,), (fake.INVALID,)),
                JpegFaces(30, 10, (face,), (fake.SEGFAULT,)),
            ],
        )
        assert photo.result().width == len(b"a photo")
        assert (faces.result().width, len(faces.result().faces), faces.result().more_faces) == (20, 2, 3)
        assert jpeg.result().faces[0].box == face.box
        with pytest.raises(InvalidImage):
            invalid.result()
        with pytest.raises(EngineFailure, match="SIGSEGV"):
            crash.result()


def test_queued_images_form_one_batch(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Up to the largest batch."""
    with closing(make(tmp_path, batch_max=4)) as engine:
        for future in batch_together(engine, callers, GOOD):
            future.result()
    assert fake.notes(tmp_path, fake.BATCHES) == ["4", "3"]


def test_invalid_image_is_an_answer(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Nothing is retried or replaced."""
    with closing(make(tmp_path)) as engine:
        *good, bad = batch_together(engine, callers, [*GOOD, fake.INVALID])
        with pytest.raises(InvalidImage, match="no picture"):
            bad.result()
        assert [future.result().width for future in good] == [len(image) for image in GOOD]
    assert fake.notes(tmp_path, fake.BATCHES) == ["8"]


@pytest.mark.parametrize(
    ("poison", "limit_seconds", "reason"),
    [
        (fake.SEGFAULT, 20, r"crashed \(SIGSEGV\)"),
        (fake.PARTIAL, 20, r"ended with status 3"),
        (fake.GIBBERISH, 20, r"(ended with status 3|crashed \(SIGKILL\))"),
        (fake.EXIT, 20, "ended with status 3"),
        (fake.HANG, 0.7, r"exceeded 0\.7 s"),
        (fake.RAISE, 20, "raised RuntimeError"),
    ],
)
def test_only_the_culprit_fails(
    tmp_path: Path, callers: ThreadPoolExecutor, poison: bytes, limit_seconds: float, reason: str
) -> None:
    """The other images of its batch get their answers."""
    with closing(make(tmp_path, limit_seconds=limit_seconds)) as engine:
        futures = batch_together(engine, callers, [*GOOD[:3], poison, *GOOD[3:]])
        before, culprit, after = futures[:3], futures[3], futures[4:]
        assert [future.result().width for future in before + after] == [len(image) for image in GOOD]
        with pytest.raises(EngineFailure, match=reason):
            culprit.result()
        assert engine.analyse(b"next").width == 4


def test_two_culprits_in_one_batch_both_fail(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Each one fails alone."""
    with closing(make(tmp_path, engines=2)) as engine:
        futures = batch_together(engine, callers, [fake.EXIT, *GOOD[:2], fake.SEGFAULT])
        assert [future.result().width for future in futures[1:3]] == [1, 2]
        for culprit in (futures[0], futures[3]):
            with pytest.raises(EngineFailure):
                culprit.result()


def test_child_killed_while_idle_is_replaced_at_once(tmp_path: Path) -> None:
    """No image fails, and the replacement is ready before the next image."""
    os.mkfifo(tmp_path / fake.GATE)
    with closing(make(tmp_path)) as engine:
        starter = threading.Thread(target=engine.start)
        starter.start()
        (tmp_path / fake.GATE).write_bytes(b"")
        starter.join()
        first = int(fake.notes(tmp_path, fake.STARTS)[0])
        os.kill(first, 9)
        # Opening the pipe for writing returns only when the replacement waits at its other end.
        (tmp_path / fake.GATE).write_bytes(b"")
        assert engine.analyse(b"next").width == 4
        assert len(fake.notes(tmp_path, fake.STARTS)) == 2


def test_missing_model_ends_the_start(tmp_path: Path) -> None:
    """The operator gets the child's sentence after one attempt."""
    (tmp_path / fake.REFUSE).touch()
    engine = make(tmp_path)
    with pytest.raises(ConfigurationError, match="facerec model build"):
        engine.start()
    assert len(fake.notes(tmp_path, fake.STARTS)) == 1


def test_crash_while_loading_ends_the_start(tmp_path: Path) -> None:
    """The error says what to try."""
    (tmp_path / fake.BROKEN).touch()
    with pytest.raises(ConfigurationError, match="ended with status 3; try"):
        make(tmp_path).start()
    assert len(fake.notes(tmp_path, fake.STARTS)) == 1


def test_passing_lack_of_memory_costs_one_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt starts a replacement."""
    monkeypatch.setattr("facerec.engine.feeder._RESTART_DELAYS_SECONDS", (0.0, 0.0))
    popen, refusals = subprocess.Popen, [OSError(errno.ENOMEM, "Cannot allocate memory")]

    def short_of_memory(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        if refusals:
            raise refusals.pop()
        return popen(*arguments, **options)

    with closing(make(tmp_path)) as engine:
        engine.start()
        monkeypatch.setattr(subprocess, "Popen", short_of_memory)
        with pytest.raises(EngineFailure):
            engine.analyse(fake.EXIT)
        assert engine.analyse(b"next").width == 4
    assert not refusals


def test_unexpected_fault_fails_all_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callers: ThreadPoolExecutor
) -> None:
    """Those in the batch and later ones; one cause is that no thread can be started for the deadline."""
    fault = Mock(side_effect=RuntimeError("can't start new thread"))
    monkeypatch.setattr("facerec.engine.feeder.EngineProcess.analyse", fault)
    with closing(make(tmp_path)) as engine:
        futures = batch_together(engine, callers, GOOD[:3])
        for future in (*futures, callers.submit(engine.analyse, b"later")):
            with pytest.raises(ConfigurationError, match="can't start new thread"):
                future.result(30)


def test_engine_gives_up_without_a_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few attempts every caller gets the error, and the engine stays down."""
    monkeypatch.setattr("facerec.engine.feeder._RESTART_DELAYS_SECONDS", (0.0, 0.0, 0.0))
    with closing(make(tmp_path)) as engine:
        engine.start()
        (tmp_path / fake.REFUSE).touch()
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="facerec model build"):
                engine.analyse(fake.EXIT)
    assert len(fake.notes(tmp_path, fake.STARTS)) == 4


def test_slow_start_has_a_deadline(tmp_path: Path) -> None:
    """A child that is not ready in time is killed."""
    os.mkfifo(tmp_path / fake.GATE)
    worker = WorkerSettings(engines=1, startup_seconds=0.5)
    with pytest.raises(ConfigurationError, match=r"exceeded 0\.5 s"):
        SupervisedEngine(Settings(worker=worker), tmp_path, factory=fake.FACTORY).start()


def test_close_leaves_nothing_behind(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """No child or zombie, no thread and no descriptor remains, also after crashes."""
    descriptors = set(Path("/proc/self/fd").iterdir())
    threads = set(threading.enumerate())
    with closing(make(tmp_path, engines=2)) as engine:
        engine.start()
        for image in (fake.EXIT, fake.SEGFAULT):
            with pytest.raises(EngineFailure):
                engine.analyse(image)
    assert all(gone(int(pid)) for pid in fake.notes(tmp_path, fake.STARTS))
    assert set(threading.enumerate()) <= threads
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors


def test_close_that_finishes_nothing_ends_a_child_at_work(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """Its picture may come again; without this, a picture that hangs would hold the process up for its time limit."""
    engine = make(tmp_path)
    (hanging,) = batch_together(engine, callers, [fake.HANG])
    assert poll_until(lambda: engine.waiting == 0, 20)
    engine.close(finish=False)
    assert isinstance(hanging.exception(10), Transient)  # at its time limit it would get an `EngineFailure`
    assert all(gone(int(pid)) for pid in fake.notes(tmp_path, fake.STARTS))


def test_analyse_after_close_is_transient(tmp_path: Path, callers: ThreadPoolExecutor) -> None:
    """The task is delivered again."""
    engine = make(tmp_path)
    with closing(engine):
        engine.start()
    with pytest.raises(Transient, match="shutting down"):
        engine.analyse(b"late")


def test_close_kills_a_loading_child(tmp_path: Path) -> None:
    """It does not delay the shutdown."""
    os.mkfifo(tmp_path / fake.GATE)
    engine = make(tmp_path)
    failed: list[BaseException] = []

    def start() -> None:
        try:
            engine.start()
        except ConfigurationError as exc:
            failed.append(exc)

    starter = threading.Thread(target=start)
    starter.start()
    with (tmp_path / fake.GATE).open("wb"):  # from here on the child waits for our end to close
        engine.close()
    starter.join()
    assert len(failed) == 1


def test_children_end_with_a_killed_worker(tmp_path: Path) -> None:
    """Also a child that hangs and never reads its pipe."""
    program = (
        "import sys, pathlib; from tests.unit.facerec.engine import test_supervisor as t; "
        "engine = t.make(pathlib.Path(sys.argv[1])); engine.start(); print('started', flush=True); "
        "engine.analyse(t.fake.HANG)"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert b"started\n" in worker.stdout
    child = os.pidfd_open(int(fake.notes(tmp_path, fake.STARTS)[0]))
    try:
        worker.kill()
        worker.communicate()
        assert select.select([child], [], [], 10)[0]
    finally:
        os.close(child)
