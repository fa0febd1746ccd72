"""Opens the model in use: its artefact, an engine for commands, and the analyser of an engine child.

numpy and the engine's libraries are imported by the functions that need them.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from facerec.engine.child import EngineSpec, PickledFaces
from facerec.errors import ConfigurationError
from model.artefact import Artefact, ArtefactError
from model.packs import PERMISSIVE, RESEARCH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facerec.settings import Settings
    from model.analysis import PictureLimits
    from model.engines import Engine, LoadedModel
    from model.faces import ImageAnalysis, JpegFaces, PackedFaces, PictureFaces
    from model.header import InvalidImage

A = TypeVar("A")


def load_artefact(settings: "Settings") -> Artefact:
    """Load the artefact; raises `ConfigurationError` if it is missing or its licence is not accepted."""
    try:
        artefact = Artefact.load(settings.model.dir)
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc
    check_licence(settings, artefact.pack, artefact.licence)
    return artefact


def check_licence(settings: "Settings", pack: str, licence: str) -> None:
    """Raise `ConfigurationError` unless the settings accept the licence of a pack's weights."""
    if licence == RESEARCH and settings.model.licence == PERMISSIVE:
        raise ConfigurationError(
            f"the weights of the pack {pack} are for non-commercial research only: set FACEREC_MODEL__LICENCE=research "
            "if that is what you do, or build another one with `facerec model build --pack open`"
        )


def open_engine(settings: "Settings", artefact: Artefact, name: str | None = None) -> "Engine":
    """Open the artefact's engine on all cores, by default the settings' engine; raises `ConfigurationError`."""
    from model import engines

    try:
        return engines.open_engine(
            artefact,
            name or settings.engine,
            threads=available_cores(),
            cache_directory=settings.model.cache_dir,
            precision=settings.precision,
        )
    except engines.EngineUnavailable as exc:
        raise ConfigurationError(str(exc)) from exc


def analyser(settings: "Settings", engine: "Engine") -> "Callable[[bytes], ImageAnalysis]":
    """Return a function from a photo's bytes to its faces, with the settings' limits; it raises `InvalidImage`."""
    from model.analysis import PictureLimits, analyse

    limits = PictureLimits(settings.max_megapixels, settings.model.max_faces, settings.model.min_face_pixels)
    return lambda photo: analyse(engine, photo, limits)


@dataclass(frozen=True)
class ModelAnalyser(Generic[A]):
    """`Analyser` over a loaded model, or one half of it."""

    name: str
    precision: str
    model_id: str
    prepare: Callable[[], Iterator[None]]
    analyse_batch: Callable[[Sequence[bytes]], list[A]]

    @classmethod
    def of(cls, model: "LoadedModel", analyse_batch: Callable[[Sequence[bytes]], list[A]]) -> Self:
        """Return the analyser whose answers this function gives."""
        return cls(model.name, model.precision, model.model_id, model.prepare, analyse_batch)


def open_analyser(spec: EngineSpec) -> "ModelAnalyser[ImageAnalysis | InvalidImage]":
    """Load an engine child's model and run every network once; raises `ArtefactError` or `EngineUnavailable`.

    It takes pictures and `PickledFaces`, also in one batch.
    """
    from model import engines
    from model.analysis import detect_batch
    from model.embedding import embed_valid

    artefact = Artefact.load(spec.artefact_dir)
    engine = engines.open_engine(
        artefact, spec.engine, threads=1, cache_directory=spec.cache_dir, precision=spec.precision
    )
    # The first inference allocates and, in some engines, compiles: do that before the first task.
    blank = _blank(artefact)
    engine.detect(blank[0])
    engine.embed(blank)
    side, limits = artefact.crop.image_size, _limits(spec)

    def analyse(inputs: Sequence[bytes]) -> "list[ImageAnalysis | InvalidImage]":
        pictures = [each for each in inputs if not isinstance(each, PickledFaces)]
        detected = iter(detect_batch(engine, pictures, limits))
        found = [_faces(each, side) if isinstance(each, PickledFaces) else next(detected) for each in inputs]
        return embed_valid(engine, found)

    return ModelAnalyser.of(engine, analyse)


def open_detector(spec: EngineSpec) -> "ModelAnalyser[PackedFaces | InvalidImage]":
    """As `open_analyser`, for pictures whose faces are not embedded: the embedder is not read."""
    from facerec.faces_message import packed_faces
    from model import engines
    from model.analysis import detect_batch
    from model.faces import PictureFaces

    artefact = Artefact.load(spec.artefact_dir)
    engine = engines.open_detector(
        artefact, spec.engine, threads=1, cache_directory=spec.cache_dir, precision=spec.precision
    )
    engines.detect_one(engine.detector, _blank(artefact)[0])
    limits = _limits(spec)

    def detect(images: Sequence[bytes]) -> "list[PackedFaces | InvalidImage]":
        found = detect_batch(engine, images, limits)
        return [packed_faces(each) if isinstance(each, PictureFaces) else each for each in found]

    return ModelAnalyser.of(engine, detect)


def open_embedder(spec: EngineSpec) -> "ModelAnalyser[ImageAnalysis | InvalidImage]":
    """As `open_analyser`, for `PickledFaces` alone: the detector is not loaded.

    OpenCV and Pillow are loaded with the first crop that is a JPEG.
    """
    from model import engines
    from model.embedding import embed_valid

    artefact = Artefact.load(spec.artefact_dir)
    engine = engines.open_embedder(
        artefact, spec.engine, threads=1, cache_directory=spec.cache_dir, precision=spec.precision
    )
    engine.embed(_blank(artefact))
    side = artefact.crop.image_size
    return ModelAnalyser.of(engine, lambda inputs: embed_valid(engine, [_faces(each, side) for each in inputs]))


def _faces(pickled: bytes, crop_side: int) -> "PictureFaces | InvalidImage":
    """Return the faces, with the crops decoded if they are JPEG files."""
    from model.faces import PictureFaces
    from model.header import InvalidImage

    # The supervisor has made them from checked messages, as it pickles all that goes over its pipe.
    faces: PictureFaces | JpegFaces = pickle.loads(pickled)  # noqa: S301 - see above
    if isinstance(faces, PictureFaces):
        return faces
    from model.imaging import decode_crops

    try:
        return decode_crops(faces, crop_side)
    except InvalidImage as exc:
        return exc


def _limits(spec: EngineSpec) -> "PictureLimits":
    from model.analysis import PictureLimits

    return PictureLimits(spec.max_megapixels, spec.max_faces, spec.min_face_pixels)


def _blank(artefact: Artefact) -> "NDArray[np.uint8]":
    """Return one black crop, uint8 (1, S, S, 3)."""
    import numpy as np

    side = artefact.crop.image_size
    return np.zeros((1, side, side, 3), dtype=np.uint8)


def available_cores(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the whole cores that this process may use, at least 1: its affinity, limited by its control groups.

    A container's share of CPU time (`docker run --cpus 2`, a Kubernetes limit) is a quota, not an affinity. With an
    engine for each core of the machine the kernel would throttle the process most of the time.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas(cgroups, membership)])))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The readable quotas that apply to this process, in cores (cgroups(7)); the lowest one limits it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # `0::/path` in version 2, `4:cpu,cpuacct:/path` in version 1.
        _, controllers, path = line.split(":", 2)
        # A container sees its own group at the root, whatever the path says; otherwise every level may limit it.
        group = Path(path.lstrip("/"))
        levels = {Path(), group, *group.parents}
        if not controllers:
            yield from _readable(cgroups / level / "cpu.max" for level in levels)
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                yield from _readable(cgroups / mount / level / "cpu.cfs_quota_us" for level in levels)


def _readable(files: Iterator[Path]) -> Iterator[float]:
    for file in files:
        try:
            quota, *period = file.read_text().split()
            cores = int(quota) / int(period[0] if period else file.with_name("cpu.cfs_period_us").read_text())
        except (OSError, ValueError):  # "max 100000" is no limit
            continue
        if cores > 0:
            yield cores
