"""How long a model takes for a photo on this machine."""

import statistics
import time
from io import BytesIO

from facerec.engine.loading import open_engine
from facerec.settings import Settings
from model.artefact import Artefact

_SIDE = 250  # pixels of the photo: as those of LFW
_ROUNDS = 15


def photo_ms(settings: Settings, artefact: Artefact) -> float:
    """Return the median milliseconds of CPU time to decode and search a photo, and to crop and embed one face.

    The time of the networks does not depend on what is in the photo, so that noise and an assumed face will do.
    """
    import numpy as np
    from PIL import Image

    from model.alignment import TEMPLATE
    from model.faces import Box, DetectedFace
    from model.imaging import decode

    engine = open_engine(settings, artefact)
    shades = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    photo = BytesIO()
    Image.fromarray(shades).resize((_SIDE, _SIDE)).save(photo, "JPEG", quality=90)
    face = DetectedFace(Box(60, 60, 190, 190), 1.0, tuple((x + 60, y + 60) for x, y in TEMPLATE.tolist()))
    times = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        image = decode(photo.getvalue())
        engine.detect(image)
        engine.embed(engine.cropper.crop(image, face)[np.newaxis])
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)
