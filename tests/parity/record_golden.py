"""Records what facenet-pytorch finds in the samples into `tests/unit/model/detection/golden_detection.json`.

Run `python tests/parity/record_golden.py` from the root, in an environment with the `export` extra, when a sample
changes. Boxes, landmarks and probabilities are those of `MTCNN(keep_all=True, min_face_size=20).detect`, on CPU.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from facenet_pytorch import MTCNN
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "unit" / "model" / "detection" / "golden_detection.json"
DECIMALS = 4  # a thousandth of the tolerance


def record() -> dict[str, Any]:
    """Return the golden values of every sample picture."""
    from model.imaging import decode  # noqa: PLC0415 - the script sets the path up first

    mtcnn = MTCNN(keep_all=True, min_face_size=20)
    pictures = {}
    for path in sorted(path for path in (ROOT / "examples").rglob("*") if path.suffix in {".jpg", ".png", ".webp"}):
        data = path.read_bytes()
        boxes, probabilities, landmarks = mtcnn.detect(Image.fromarray(decode(data)), landmarks=True)
        found = [] if boxes is None else zip(boxes, probabilities, landmarks, strict=True)
        pictures[path.relative_to(ROOT).as_posix()] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "faces": [
                {
                    "box": [round(float(edge), DECIMALS) for edge in box],
                    "probability": round(float(probability), DECIMALS),
                    "landmarks": [[round(float(value), DECIMALS) for value in point] for point in points],
                }
                for box, probability, points in found
            ],
        }
    return {"made_with": f"facenet-pytorch {version('facenet-pytorch')}", "pictures": pictures}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    GOLDEN.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
