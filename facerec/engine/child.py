"""The child's side: load the engine once, then turn batches of images into faces until the pipe closes."""

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

from model.header import InvalidImage

if TYPE_CHECKING:
    from model.faces import ImageAnalysis

REAL_ANALYSER = "facerec.engine.analyser:open_analyser"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a child loads, once, at its start.

    `factory` is `module:function`; the function takes this very value and returns an `Analyser`.
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
    """The child's first word: the engine is loaded and warm."""

    name: str
    precision: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The child's first and last word where it cannot load; `reason` is one sentence."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The whole batch raised in the child, which lives on; `reason` ends the sentence "the engine …"."""

    reason: str
    traceback: str


class Analyser(Protocol):
    """What a factory returns: a loaded and warm engine, used by one thread."""

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""

    @property
    def precision(self) -> str:
        """What its numbers are: `fp32`, `bf16`."""

    @property
    def model_id(self) -> str:
        """Which model its embeddings belong to."""

    def prepare(self) -> Iterator[None]:
        """Steps that make later batches quicker, to be taken one by one while there is nothing else to do."""

    def analyse_batch(self, images: Sequence[bytes]) -> "list[ImageAnalysis | InvalidImage]":
        """One answer per image, in their order; a picture that cannot be read is an answer, not an exception."""


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_TITLE = b"facerec-engine"
_OOM_SCORE = "500"
_SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def run(pipe: "Connection[Any, Any]") -> None:
    """Serve the supervisor at the other end of the pipe; returns when the pipe closes, or when loading failed."""
    _settle_in()
    # The supervisor has closed the pipe, or is no more: both are the order to end.
    with suppress(EOFError, ConnectionError):
        analyser = _load(pipe.recv())
        if isinstance(analyser, Refused):
            pipe.send(analyser)
            return
        pipe.send(Ready(analyser.name, analyser.precision, analyser.model_id))
        steps = analyser.prepare()
        while True:
            prepare_while_idle(pipe, steps)
            pipe.send(_answer(analyser, pipe.recv()))


def _settle_in() -> None:
    # Ctrl-C and a service manager's SIGTERM reach every process of the worker. The supervisor decides when a child
    # ends, after the tasks in hand: it closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    # A child in an endless loop does not see its pipe close when the supervisor is killed: the kernel ends it then.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, _TITLE, 0, 0, 0)
    # Where memory runs out the kernel shall take the process that can be replaced, not the one that holds the tasks;
    # a wish only, since a container may forbid it.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    # One child per core: a pool of threads in each would only fight over the cores. Read when numpy is imported.
    os.environ.update(dict.fromkeys(_SINGLE_THREADED, "1"))


def _load(spec: EngineSpec) -> Analyser | Refused:
    module, _, function = spec.factory.partition(":")
    try:
        analyser: Analyser = getattr(import_module(module), function)(spec)
    except Exception as exc:  # noqa: BLE001 - the supervisor reports it, whatever it is
        # Our own errors speak in sentences; Python's need their name.
        ours = type(exc).__module__.startswith(("model.", "facerec."))
        reason = str(exc) if ours else f"the engine does not load: {type(exc).__name__}: {exc}"
        return Refused(reason, traceback.format_exc())
    return analyser


def prepare_while_idle(pipe: "Connection[Any, Any]", steps: Iterator[None]) -> None:
    """Take steps until there are no more or something has come through the pipe, its end included."""
    while not pipe.poll():
        try:
            next(steps)
        except StopIteration:
            return
        except Exception:  # noqa: BLE001 - what fails here fails again when it is needed, and is reported then
            traceback.print_exc()
            return


def _answer(analyser: Analyser, images: list[bytes]) -> Any:
    try:
        return analyser.analyse_batch(images)
    except Exception as exc:  # noqa: BLE001 - the supervisor finds out which image it was, and reports it
        return BatchFailed(f"raised {type(exc).__name__}: {exc}", traceback.format_exc())
