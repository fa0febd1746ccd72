"""From the crops of faces to their embeddings; without the libraries that decode and detect."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.faces import EmbeddedFace, ImageAnalysis, MeasuredFace, PictureFaces
from model.header import InvalidImage
from model.packs import EmbedderSpec
from model.quality import assess

EMBED_BATCH = 16  # crops at a time: a group photo needs no more memory than several portraits


class Embeddings(NamedTuple):
    """Embeddings with the lengths of the network's outputs."""

    vectors: NDArray[np.float32]
    """(N, D), L2-normalised."""
    norms: NDArray[np.float32] | None
    """(N,) lengths before normalisation, divided by that of ordinary photos; None if the network itself normalises.

    A small length means that the network finds few features of a face.
    """


class Embedder(Protocol):
    """A loaded embedding network, for one thread at a time."""

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3), N >= 1."""


def embed_batch(embedder: Embedder, pictures: Sequence[PictureFaces]) -> list[ImageAnalysis]:
    """Return the pictures with the embeddings of their faces; the crops of all pictures are embedded together."""
    crops = [crop for picture in pictures for crop in picture.crops]
    started = perf_counter()
    embedded = iter(list(_embedded(embedder, crops)))
    embed_ms = (perf_counter() - started) * 1000 / max(1, len(crops))
    return [
        ImageAnalysis(
            width=picture.width,
            height=picture.height,
            faces=tuple(_face(face, *next(embedded)) for face in picture.faces),
            timings_ms={**picture.timings_ms, "embed": embed_ms * len(picture.faces)},
            more_faces=picture.more_faces,
        )
        for picture in pictures
    ]


def embed_valid(
    embedder: Embedder, pictures: Sequence[PictureFaces | InvalidImage]
) -> list[ImageAnalysis | InvalidImage]:
    """As `embed_batch`; what is invalid keeps its place."""
    embedded = iter(embed_batch(embedder, [each for each in pictures if isinstance(each, PictureFaces)]))
    return [next(embedded) if isinstance(each, PictureFaces) else each for each in pictures]


def _embedded(
    embedder: Embedder, crops: Sequence[NDArray[np.uint8]]
) -> Iterator[tuple[NDArray[np.float32], float | None]]:
    """Yield each crop's embedding and its norm, if there is one."""
    for first in range(0, len(crops), EMBED_BATCH):
        vectors, norms = embedder.embed(np.stack(crops[first : first + EMBED_BATCH]))
        yield from zip(vectors, repeat(None) if norms is None else norms.tolist(), strict=norms is not None)


def _face(face: MeasuredFace, embedding: NDArray[np.float32], norm: float | None) -> EmbeddedFace:
    quality = assess(face.factors, norm)
    return EmbeddedFace(face.box, face.probability, face.landmarks, embedding, quality, face.thumbnail)


def preprocess(crops: NDArray[np.uint8], embedder: EmbedderSpec) -> NDArray[np.float32]:
    """Return crops (N, S, S, 3) as network input, float32 (N, 3, S, S): (x - mean) / scale."""
    planes = crops.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    if embedder.mean:
        planes -= embedder.mean
    if embedder.scale != 1:
        planes /= embedder.scale
    return planes


def normalised(outputs: NDArray[np.float32], embedder: EmbedderSpec) -> Embeddings:
    """Return a network's outputs (N, D) as embeddings."""
    if embedder.typical_norm is None:
        return Embeddings(outputs, None)
    norms = np.linalg.norm(outputs, axis=1)
    return Embeddings(outputs / np.maximum(norms, 1e-12)[:, np.newaxis], norms / np.float32(embedder.typical_norm))
