"""The app tier that everyone copies, as a yardstick: one process that handles one message at a time.

    python -m benchmarks.naive_tier   # configured as `benchmarks.pipeline` does it, by a JSON object on stdin

receive one message (long poll) → get the photo from S3 → MTCNN at 240 px, InceptionResnetV1 in eager float32 and a loop
over the gallery → put the result → send it → delete the message. Nothing is slowed down: it polls long, sleeps nowhere,
keeps its connections, and has run the networks before it takes its first message. The model part is that of
`facenet-pytorch` as published, with the weights of our artefact, because no download is needed for them.
"""

import json
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import onnx
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from PIL import Image

from model.artefact import Artefact
from model.embedder_graph import read_weights
from model.weights import unfold

FACE_PIXELS = 240
LEAST_PROBABILITY = 0.9
POLL_SECONDS = 20


class NaiveModel:
    """Photo in, name out, as the pattern does it."""

    def __init__(self, artefact: Artefact) -> None:
        self._mtcnn = MTCNN(image_size=FACE_PIXELS, margin=0, min_face_size=20)
        self._resnet = InceptionResnetV1(classify=False).eval()
        weights = unfold(read_weights(onnx.load(artefact.path("embedder.onnx"))))
        self._resnet.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()}, strict=False)
        self._gallery: list[tuple[torch.Tensor, str]] = []

    def enrol(self, people: Path) -> None:
        """Take every photo of `people/<name>/` into the gallery."""
        for photo in sorted(people.glob("*/*")):
            embedding = self._embedding(photo.read_bytes())
            if embedding is not None:
                self._gallery.append((embedding, photo.parent.name))

    def name(self, photo: bytes) -> str:
        """The nearest person of the gallery."""
        embedding = self._embedding(photo)
        if embedding is None:
            return "No-Face"
        distances = [torch.dist(embedding, known).item() for known, _ in self._gallery]
        return self._gallery[distances.index(min(distances))][1]

    def _embedding(self, photo: bytes) -> torch.Tensor | None:
        face, probability = self._mtcnn(Image.open(BytesIO(photo)).convert("RGB"), return_prob=True)
        if face is None or probability < LEAST_PROBABILITY:
            return None
        with torch.no_grad():
            embedding: torch.Tensor = self._resnet(face.unsqueeze(0))
        return embedding


def main() -> None:
    """Serve until killed; one line on stdout says that everything is warm."""
    torch.set_num_threads(1)
    options: Mapping[str, Any] = json.load(sys.stdin)
    model = NaiveModel(Artefact.load(Path(options["artefact"])))
    people = Path(options["people"])
    model.enrol(people)
    for enrolled in sorted(people.glob("*/*"))[:3]:
        model.name(enrolled.read_bytes())
    s3 = boto3.client("s3", endpoint_url=options["endpoint_url"])
    sqs = boto3.client("sqs", endpoint_url=options["endpoint_url"])
    print("warm", flush=True)
    while True:
        received = sqs.receive_message(
            QueueUrl=options["requests"], MaxNumberOfMessages=1, WaitTimeSeconds=POLL_SECONDS
        )
        for message in received.get("Messages", []):
            request = json.loads(message["Body"])
            photo = s3.get_object(Bucket=options["input_bucket"], Key=request["key"])["Body"].read()
            name = model.name(photo)
            s3.put_object(Bucket=options["output_bucket"], Key=request["filename"], Body=name.encode())
            sqs.send_message(
                QueueUrl=options["responses"], MessageBody=json.dumps({"filename": request["filename"], "result": name})
            )
            sqs.delete_message(QueueUrl=options["requests"], ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
