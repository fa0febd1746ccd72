"""The engine child: load the engine once, then turn batches of images into faces until the pipe closes."""

import ctypes
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

REAL_ANALYSER = "facerec.engine.loading:open_analyser"
DETECTOR = "facerec.engine.loading:open_detector"
EMBEDDER = "facerec.engine.loading:open_embedder"
"""The factories: the whole model, and each half of it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_TITLE = b"facerec-engine"
_OOM_SCORE = "500"
_SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a child loads at its start.

    `factory` is `module:function`; the function takes this spec and returns an `Analyser`.
    """

    artefact_dir: Path
    engine: str
    max_megapixels: float
    cache_dir: Path
    precision: str = "auto"
    max_faces: int = 100
    min_face_pixels: int | None = None
    factory: str = REAL_ANALYSER


@dataclass(frozen=True, slots=True)
class Ready:
    """The child's first message: the engine is loaded and warm."""

    name: str
    precision: str
    model_id: str


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An exception in the child, as the answer to the spec (the child ends then) or to a batch (it goes on)."""

    reason: str
    """One sentence; for a batch, the end of the sentence "the engine …"."""
    traceback: str


class PickledFaces(bytes):
    """An input that is no picture: pickled `PictureFaces`, or `JpegFaces`."""

    __slots__ = ()


class Analyser(Protocol):
    """What a factory returns: a loaded and warm engine, used by one thread; the fields are those of `Ready`."""

    name: str
    precision: str
    model_id: str

    def prepare(self) -> Iterator[None]:
        """Yield after each step that makes later batches quicker; the child takes steps while it is idle."""

    def analyse_batch(self, images: Sequence[bytes], /) -> Sequence[object]:
        """Return one answer per input, in their order; an unreadable picture is an answer, not an exception.

        The inputs are pictures or `PickledFaces`, and the answers `ImageAnalysis` or `InvalidImage`; each half of the
        model takes one kind of them.
        """


def run(pipe: "Connection[Any, Any]") -> None:
    """Serve the supervisor at the other end of the pipe; returns when the pipe closes or loading failed."""
    _set_up_process()
    # The pipe ends when the supervisor closes it or is killed: the child ends, too.
    with suppress(EOFError, ConnectionError):
        analyser = _load(pipe.recv())
        if isinstance(analyser, ErrorReply):
            pipe.send(analyser)
            return
        pipe.send(Ready(analyser.name, analyser.precision, analyser.model_id))
        steps = analyser.prepare()
        while True:
            prepare_while_idle(pipe, steps)
            pipe.send(_answer(analyser, pipe.recv()))


def _set_up_process() -> None:
    # Ctrl-C, Ctrl-\ and a service manager's SIGTERM reach every process of the worker. The supervisor ends the child
    # after the tasks in progress, by closing the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    # A child in an endless loop does not notice that the supervisor was killed: the kernel kills the child then.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, _TITLE, 0, 0, 0)
    # When memory runs out, the kernel should kill this replaceable process, not the one that holds the tasks.
    with suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    # With one child per core, thread pools in each would compete for the cores. numpy reads these when it is imported.
    os.environ.update(dict.fromkeys(_SINGLE_THREADED, "1"))


def _load(spec: EngineSpec) -> Analyser | ErrorReply:
    module, _, function = spec.factory.partition(":")
    try:
        analyser: Analyser = getattr(import_module(module), function)(spec)
    except Exception as exc:  # noqa: BLE001 - the supervisor reports it
        # Our own errors are sentences; Python's need their class name.
        ours = type(exc).__module__.startswith(("model.", "facerec."))
        reason = str(exc) if ours else f"the engine does not load: {type(exc).__name__}: {exc}"
        return ErrorReply(reason, traceback.format_exc())
    return analyser


def prepare_while_idle(pipe: "Connection[Any, Any]", steps: Iterator[None]) -> None:
    """Take steps until none is left, or the pipe has a message or was closed."""
    while not pipe.poll():
        try:
            next(steps)
        except StopIteration:
            return
        except Exception:  # noqa: BLE001 - the batch that needs this step fails again and is reported
            traceback.print_exc()
            return


def _answer(analyser: Analyser, images: list[bytes]) -> Any:
    try:
        return analyser.analyse_batch(images)
    except Exception as exc:  # noqa: BLE001 - the supervisor finds the image that caused it
        return ErrorReply(f"raised {type(exc).__name__}: {exc}", traceback.format_exc())
