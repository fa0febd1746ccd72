"""An engine for tests: an image says what the engine does with it; the children write into a folder.

A photo of `tests.fakes.drawn_faces` has the faces that are written into it.

The folder is the `artefact_dir` of the spec. Each child adds a line with its process id to `STARTS`, its precision to
`PRECISIONS`, and the size of each finished batch to `BATCHES`. With a file `REFUSE` children do not load, with `BROKEN`
they crash while loading. At a named pipe `GATE` they wait while loading until the test opens it for writing; at a named
pipe `HELD` they wait so with the image `HOLD`.
"""

import ctypes
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facerec.engine.child import EngineSpec, PickledFaces
from model.artefact import ArtefactMissing
from model.faces import Box, EmbeddedFace, ImageAnalysis, JpegFaces, PictureFaces
from model.header import InvalidImage
from tests.fakes.drawn_faces import DrawnFacesEngine, is_drawn

FACTORY = f"{__name__}:open_fake"

SEGFAULT = b"segfault"
EXIT = b"exit"
PARTIAL = b"partial"
GIBBERISH = b"gibberish"
HANG = b"hang"
HOLD = b"hold"
RAISE = b"raise"
INVALID = b"invalid"
COMMANDS = frozenset({SEGFAULT, EXIT, HANG, HOLD, RAISE, INVALID})

STARTS = "starts"
PRECISIONS = "precisions"
BATCHES = "batches"
REFUSE = "refuse"
BROKEN = "broken"
GATE = "gate"
HELD = "held"


class FakeAnalyser:
    """Finds one face in every image, as wide as the image has bytes; embeds faces as they are."""

    name = "fake"
    precision = "fp32"
    model_id = "fake-model"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> Iterator[None]:
        """No steps."""
        yield from ()

    def analyse_batch(self, images: Sequence[bytes]) -> list[ImageAnalysis | InvalidImage]:
        """Answer each image, or fail as it says."""
        for image in images:
            if image in _BREAKS_THE_PIPE:
                _answer_by_hand(_BREAKS_THE_PIPE[image])
        answers = [_answer(image, self._folder) for image in images]
        note(self._folder, BATCHES, str(len(images)))
        return answers


def open_fake(spec: EngineSpec) -> FakeAnalyser:
    """The factory that a child calls."""
    folder = spec.artefact_dir
    note(folder, STARTS, str(os.getpid()))
    note(folder, PRECISIONS, spec.precision)
    if (folder / GATE).exists():
        (folder / GATE).read_bytes()
    if (folder / REFUSE).exists():
        raise ArtefactMissing(folder)
    if (folder / BROKEN).exists():
        os._exit(3)
    return FakeAnalyser(folder)


def note(folder: Path, name: str, line: str) -> None:
    """Append a line; short lines of several processes do not mix."""
    with (folder / name).open("a") as file:
        file.write(f"{line}\n")


def notes(folder: Path, name: str) -> list[str]:
    """The lines of a file."""
    path = folder / name
    return path.read_text().split() if path.exists() else []


def analysis(image: bytes) -> ImageAnalysis:
    """The answer for an image."""
    embedding = np.zeros(512, dtype=np.float32)
    embedding[len(image) % 512] = 1
    face = EmbeddedFace(Box(0, 0, len(image), 10), 0.99, ((1.0, 1.0),) * 5, embedding)
    return ImageAnalysis(width=len(image), height=10, faces=(face,), timings_ms={"detect": 1.0})


_BREAKS_THE_PIPE = {PARTIAL: struct.pack("!i", 300_000) + bytes(1000), GIBBERISH: struct.pack("!i", 9) + b"gibberish"}
"""An incomplete answer and one that is no pickle, as bytes on the pipe: each begins with its length."""


def _answer_by_hand(message: bytes) -> None:
    # The descriptor of the child's end of the pipe is its first argument.
    os.write(int(sys.argv[1]), message)
    os._exit(3)


def embedded(faces: PictureFaces | JpegFaces) -> ImageAnalysis:
    """The answer for faces: all have the embedding of an image of one byte."""
    (one,) = analysis(b"1").faces
    found = tuple(
        replace(one, box=face.box, probability=face.probability, landmarks=face.landmarks) for face in faces.faces
    )
    return ImageAnalysis(faces.width, faces.height, found, {"embed": 1.0}, faces.more_faces)


def _answer(image: bytes, folder: Path) -> ImageAnalysis | InvalidImage:
    if isinstance(image, PickledFaces):
        faces = pickle.loads(image)  # noqa: S301 - the supervisor has pickled it
        # A JPEG crop says what happens, as an image does.
        commands = [crop for crop in faces.crops if crop in COMMANDS] if isinstance(faces, JpegFaces) else []
        if not commands:
            return embedded(faces)
        image = commands[0]
    if image.endswith(SEGFAULT):  # also behind a picture, so that the web tier accepts it
        ctypes.string_at(0)
    if image == EXIT:
        os._exit(3)
    if image == HANG:
        signal.pause()
    if image == HOLD:
        (folder / HELD).read_bytes()
    if image == RAISE:
        raise RuntimeError("the fake raises on this image")
    if image == INVALID:
        return InvalidImage("to the fake this is no picture")
    return DrawnFacesEngine().analyse(image) if is_drawn(image) else analysis(image)
