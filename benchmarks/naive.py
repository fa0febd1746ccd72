"""The common pattern of public pipelines, for comparison: one photo at a time through facenet-pytorch.

    python -m benchmarks.naive                # examples/
    python -m benchmarks.naive --images DIR

`MTCNN(image_size=240, margin=0, min_face_size=20)`, `InceptionResnetV1` in eager float32, a loop of `torch.dist` over
the gallery; the same with 160 px, for which the network was trained. One pinned thread, no gradients, the same casia
weights as ours. Needs `make install-reference`. The last line is one JSON object, in milliseconds a photo.
"""

import argparse
import json
import statistics
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import default_engine, interleaved, machine, pack_artefact, pin
from model.artefact import Artefact
from tests.support.measurements.photos import SIZES, by_size
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GALLERY = 100
SIDES = (240, 160)


class Naive:
    """The published code around the published networks, with the weights of the pack classic's artefact.

    `gallery` is float32 (N, 512), and `enrol` adds to it. Everything in it is facenet-pytorch's own. It is not slowed
    down: the networks are loaded once, stay in evaluation mode, and keep no gradients. Exits with a sentence where the
    reference is not installed.
    """

    def __init__(self, artefact: Artefact, image_size: int, gallery: "NDArray[np.float32] | None" = None) -> None:
        try:
            import torch  # noqa: PLC0415 - the sentence below is for a machine without it
            from facenet_pytorch import MTCNN  # noqa: PLC0415 - same

            from model.engines.torch import load_embedder  # noqa: PLC0415 - same
        except ModuleNotFoundError as exc:
            raise SystemExit(
                f"{exc.name} is missing: the naive pattern needs it, run `make install-reference`"
            ) from exc
        torch.set_num_threads(1)
        self._torch: Any = torch
        self._mtcnn = MTCNN(image_size=image_size, margin=0, min_face_size=20)
        self._resnet = load_embedder(artefact)
        self._gallery = [torch.from_numpy(row.copy()).unsqueeze(0) for row in ([] if gallery is None else gallery)]

    def embedding(self, data: bytes) -> Any:
        """Return the largest face's embedding, a tensor (1, 512), L2-normalised; nothing without a face."""
        from PIL import Image  # noqa: PLC0415 - as above

        with self._torch.no_grad():
            image = Image.open(BytesIO(data)).convert("RGB")
            face, _probability = self._mtcnn(image, return_prob=True)
            return None if face is None else self._resnet(face.unsqueeze(0))

    def enrol(self, data: bytes) -> bool:
        """Add the photo's face to the end of the gallery; returns whether it has one."""
        embedding = self.embedding(data)
        if embedding is not None:
            self._gallery.append(embedding)
        return embedding is not None

    def recognise(self, data: bytes) -> tuple[int, float] | None:
        """Return the gallery's nearest entry with its distance, or nothing without a face."""
        embedding = self.embedding(data)
        if embedding is None:
            return None
        distances = [self._torch.dist(embedding, known).item() for known in self._gallery]
        return distances.index(min(distances)), min(distances)


def gallery(dimension: int) -> "NDArray[np.float32]":
    """Return a gallery of strangers, float32 (GALLERY, D), L2-normalised; its content does not change the time."""
    import numpy as np  # noqa: PLC0415 - imported after the process has been pinned

    rows = np.random.default_rng(7).normal(size=(GALLERY, dimension)).astype(np.float32)
    normalised: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--limit", type=int, default=8, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pin()
    artefact = pack_artefact("classic")
    ways = {side: Naive(artefact, side, gallery(artefact.dimension)) for side in SIDES}
    result: dict[str, Any] = {}
    photos = by_size(options.images, options.limit, default_engine)
    for size in SIZES:
        if not photos[size]:
            continue
        calls = {
            f"{side} {number}": lambda way=way, data=data: way.recognise(data)
            for number, data in enumerate(photos[size])
            for side, way in ways.items()
        }
        seconds = interleaved(calls, options.rounds, warm_ups=1)
        for side in SIDES:
            mean = statistics.fmean(
                statistics.median(times) for name, times in seconds.items() if name.startswith(f"{side} ")
            )
            result[f"ms_{size}_at_{side}"] = round(mean * 1000, 1)
            print(f"{size}: {mean * 1000:.1f} ms a photo at {side} px", file=sys.stderr)
    print(json.dumps(result | {"photos": {size: len(photos[size]) for size in SIZES}, "machine": machine()}))


if __name__ == "__main__":
    main()
