"""Faces of the device and faces of a worker with the real weights: JPEG crops give the same people."""

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from facerec.device_faces import jpeg_faces
from facerec.edge.crops import edge_faces
from facerec.edge.frame import Frame
from facerec.edge_messages import EdgeFaces
from facerec.engine.child import EngineSpec, PickledFaces
from facerec.engine.loading import ModelAnalyser, open_analyser, open_detector
from facerec.faces_message import CHANNELS, unpack
from facerec.settings.edge import EdgeSettings
from model.artefact import Artefact
from model.faces import ImageAnalysis, JpegFaces, PackedFaces, PictureFaces
from model.header import InvalidImage
from model.matching import GalleryIndex
from tests.parity.pictures import COMPOSED, EXAMPLES, PHOTOS

MIN_COSINE = 0.99
LOWEST_QUALITY = EdgeSettings().min_jpeg_quality


@dataclass(frozen=True)
class Pack:
    """A pack as a device, and as a worker's engine child, has it."""

    artefact: Artefact
    detector: ModelAnalyser[PackedFaces | InvalidImage]
    worker: ModelAnalyser[ImageAnalysis | InvalidImage]

    def analyse(self, *inputs: bytes) -> list[ImageAnalysis]:
        """The answers of one batch, none of them an error."""
        answers = self.worker.analyse_batch(inputs)
        analyses = [answer for answer in answers if isinstance(answer, ImageAnalysis)]
        assert len(analyses) == len(inputs)
        return analyses

    def detect(self, photo: bytes) -> PackedFaces:
        """What the device finds in a frame."""
        (found,) = self.detector.analyse_batch([photo])
        assert isinstance(found, PackedFaces)
        return found

    def sent(self, photo: bytes, quality: int) -> JpegFaces:
        """The faces of a frame after their way through the message."""
        frame = Frame(uuid4(), "a.jpg", photo, datetime(2026, 11, 1, tzinfo=UTC))
        body = edge_faces(
            self.detect(photo),
            frame,
            thing="door",
            model_id=self.artefact.model_id,
            results=False,
            quality=quality,
            min_quality=quality,
            max_bytes=128 * 1024,
        )
        return jpeg_faces(EdgeFaces.parse(body), max_faces=100)


@pytest.fixture(scope="module", params=["open", "accurate", "classic"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Each pack on ONNX Runtime, which runs on every device."""
    fixture = {"open": "artefact_dir", "accurate": "accurate_dir", "classic": "classic_dir"}[request.param]
    directory: Path = request.getfixturevalue(fixture)
    spec = EngineSpec(directory, "onnxruntime", 50, tmp_path_factory.mktemp("cache"), precision="fp32")
    return Pack(Artefact.load(directory), open_detector(spec), open_analyser(spec))


def pickled(faces: PictureFaces | JpegFaces) -> PickledFaces:
    """Faces as the supervisor hands them to a child."""
    return PickledFaces(pickle.dumps(faces))


def group() -> bytes:
    """A photo of many people, without a loss before the frame."""
    stream = BytesIO()
    COMPOSED["a group"]().save(stream, "PNG")
    return stream.getvalue()


def test_faces_of_a_device_are_recognised_as_in_the_whole_frame(pack: Pack) -> None:
    """At the lowest default quality, on every sample photo and a group: nearly the embeddings, and the same names."""
    enrolled = sorted((EXAMPLES / "gallery").glob("*/*.jpg"))
    embeddings = [analysis.faces[0].embedding for analysis in pack.analyse(*(path.read_bytes() for path in enrolled))]
    people = [path.parent.name for path in enrolled]
    index = GalleryIndex(np.stack(embeddings), people, [path.stem for path in enrolled])

    def names(analysis: ImageAnalysis) -> list[str | None]:
        found = index.search(np.stack([face.embedding for face in analysis.faces]), limit=1)
        return [best[0].identity if best[0].similarity >= pack.artefact.threshold else None for best in found]

    named = []
    for photo in (*(path.read_bytes() for path in PHOTOS), group()):
        if not pack.detect(photo).faces:
            continue
        whole, sent = pack.analyse(photo, pickled(pack.sent(photo, LOWEST_QUALITY)))
        assert len(sent.faces) == len(whole.faces)
        for ours, theirs in zip(sent.faces, whole.faces, strict=True):
            assert float(ours.embedding @ theirs.embedding) >= MIN_COSINE
            assert ours.box.x_min == pytest.approx(theirs.box.x_min, abs=0.01)
        assert names(sent) == names(whole)
        named += names(sent)
    assert set(named) == {"Barack Obama", "Joe Biden", None}


def test_one_batch_has_photos_and_faces_of_both_kinds(pack: Pack) -> None:
    """Packed faces are embedded bit by bit as in the photo; a crop that is no such JPEG fails alone."""
    photo = PHOTOS[0].read_bytes()
    found, side = pack.detect(photo), pack.artefact.crop.image_size
    crops = unpack(found.crops, (len(found.faces), side, side, CHANNELS))
    packed = PictureFaces(found.width, found.height, found.faces, crops, {}, found.more_faces)
    jpeg = pack.sent(photo, 95)
    small = BytesIO()
    Image.new("RGB", (side, side - 1)).save(small, "JPEG")
    bad = JpegFaces(jpeg.width, jpeg.height, jpeg.faces, (small.getvalue(),) * len(jpeg.faces))
    first, lossless, invalid, lossy, broken, last = pack.worker.analyse_batch(
        [photo, pickled(packed), pickled(bad), pickled(jpeg), b"no picture", photo]
    )
    assert isinstance(first, ImageAnalysis)
    for same in (lossless, last):
        assert isinstance(same, ImageAnalysis)
        assert [face.embedding.tobytes() for face in same.faces] == [face.embedding.tobytes() for face in first.faces]
    assert isinstance(lossy, ImageAnalysis)
    assert set(lossy.timings_ms) == {"decode", "embed"}
    assert isinstance(invalid, InvalidImage)
    assert "face 0" in str(invalid)
    assert isinstance(broken, InvalidImage)
