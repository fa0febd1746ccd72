"""The use case in two halves and as a whole, with in-memory ports."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facerec.comparison import ModelThresholds
from facerec.faces_message import packed_faces
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, RecognitionRequest, RecognitionResult
from facerec.object_keys import input_key, output_key
from facerec.recognition import FaceDetection, FaceRecognition, Recogniser
from model.analysis import PictureLimits, analyse, detect_batch
from model.embedding import Embeddings, embed_batch
from model.faces import ImageAnalysis, JpegFaces, PictureFaces
from model.header import InvalidImage
from model.imaging import decode_crops
from model.matching import GalleryIndex, Match
from tests.fakes.model_engine import FakeEngine
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryDeviceResults, InMemoryFacesPublisher, InMemoryQueues
from tests.support.tails import TAILS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
AXES = np.eye(512, dtype=np.float32)
LIMITS = PictureLimits()
SIDE = 160
SERVERLESS_BYTES = 250_000


class Model(FakeEngine):
    """Both halves of a model, and the whole one, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """The axis of the crop's grey value; the more light, the longer."""
        values = crops[:, 0, 0, 0]
        return Embeddings(AXES[values % 8], (values / 255).astype(np.float32))

    def analyse(self, image: bytes) -> ImageAnalysis:
        return analyse(self, image, LIMITS)

    def detect(self, image: Any) -> Any:
        """The detector's faces for pixels, and the half's for a photo."""
        if not isinstance(image, bytes):
            return super().detect(image)
        if self.error:
            raise self.error
        (found,) = detect_batch(self, [image], LIMITS)
        if isinstance(found, InvalidImage):
            raise found
        return packed_faces(replace(found, timings_ms={"wait": 0.5, **found.timings_ms}))


class Embedder:
    """The other half, in another process."""

    name, precision, model_id = FakeEngine.name, FakeEngine.precision, FakeEngine.model_id

    def embed(self, faces: PictureFaces | JpegFaces) -> ImageAnalysis:
        decoded = faces if isinstance(faces, PictureFaces) else decode_crops(faces, SIDE)
        (analysis,) = embed_batch(Model(), [decoded])
        return replace(analysis, timings_ms={"wait": 0.25, **analysis.timings_ms})


class World:
    """Everything around the three use cases, which share the services."""

    def __init__(self, max_message_bytes: int = SERVERLESS_BYTES) -> None:
        self.store, self.model, self.queues = InMemoryObjectStore(), Model(), InMemoryQueues("faces")
        self.published: list[RecognitionResult] = []
        answering: dict[str, Any] = {
            "store": self.store,
            "publisher": self,
            "output_bucket": "out",
            "now": lambda: NOW,
        }
        comparing: dict[str, Any] = {"gallery": self, "thresholds": ModelThresholds(TAILS["classic"], 0.5, 0.01)}
        self.whole = Recogniser(engine=self.model, **answering, **comparing)
        self.detection = FaceDetection(
            engine=self.model,
            faces=InMemoryFacesPublisher(self.queues, "faces"),
            input_bucket="in",
            max_message_bytes=max_message_bytes,
            **answering,
        )
        self.recognition = FaceRecognition(
            engine=Embedder(),
            devices=InMemoryDeviceResults(self.queues),
            input_bucket="in",
            crop_side=SIDE,
            max_faces=100,
            **answering,
            **comparing,
        )

    def index(self, collection: str) -> GalleryIndex:
        return GalleryIndex(AXES[:2], ["Ada", "Grace"], ["t1", "t2"])

    def search(self, collection: str, queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        return self.index(collection).search(queries, limit)

    def threshold(self, collection: str) -> float | None:
        return None

    def rejections(self, collection: str) -> dict[str, Any]:
        return {}

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        assert self.store.exists("out", output_key(result.request_id, result.filename))
        self.published.append(result)

    def request(self, photo: bytes) -> RecognitionRequest:
        request_id = uuid4()
        key = input_key(request_id, "a.jpg")
        self.store.put("in", key, photo, "image/png")
        return RecognitionRequest(
            request_id=request_id,
            input=ObjectRef(bucket="in", key=key, size=len(photo)),
            filename="a.jpg",
            reply_to="responses",
            submitted_at=NOW,
        )

    def sent(self) -> FacesMessage:
        """The one message on the faces queue."""
        ((body, receipt),) = self.queues.receive("faces", 0)
        self.queues.delete("faces", receipt)
        return FacesMessage.parse(body)


def photo(width: int, value: int = 0) -> bytes:
    """A PNG of one grey value, with a face per ten pixels of width."""
    stream = BytesIO()
    Image.new("RGB", (width, 10), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()
