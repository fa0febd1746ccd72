"""Opens the model in use: its artefact, an engine for commands, and the analyser of an engine child.

numpy and the engine's libraries are imported by the functions that need them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facerec.engine.child import EngineSpec
from facerec.errors import ConfigurationError
from model.artefact import Artefact, ArtefactError
from model.packs import PERMISSIVE, RESEARCH

if TYPE_CHECKING:
    from facerec.settings import Settings
    from model.analysis import PictureLimits
    from model.engines import Engine
    from model.faces import ImageAnalysis
    from model.header import InvalidImage


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


class ModelAnalyser:
    """`Analyser` over a model's engine."""

    def __init__(self, engine: "Engine", limits: "PictureLimits") -> None:
        self.name = engine.name
        self.precision = engine.precision
        self.model_id = engine.model_id
        self._engine = engine
        self._limits = limits

    def prepare(self) -> Iterator[None]:
        """Yield the engine's steps."""
        return self._engine.prepare()

    def analyse_batch(self, images: Sequence[bytes]) -> "list[ImageAnalysis | InvalidImage]":
        """Return one answer per image, in their order."""
        from model.analysis import analyse_batch

        return analyse_batch(self._engine, images, self._limits)


def open_analyser(spec: EngineSpec) -> ModelAnalyser:
    """Load an engine child's model and run every network once; raises `ArtefactError` or `EngineUnavailable`."""
    import numpy as np

    from model import engines
    from model.analysis import PictureLimits

    artefact = Artefact.load(spec.artefact_dir)
    engine = engines.open_engine(
        artefact, spec.engine, threads=1, cache_directory=spec.cache_dir, precision=spec.precision
    )
    # The first inference allocates and, in some engines, compiles: do that before the first task.
    side = artefact.crop.image_size
    engine.detect(np.zeros((side, side, 3), dtype=np.uint8))
    engine.embed(np.zeros((1, side, side, 3), dtype=np.uint8))
    return ModelAnalyser(engine, PictureLimits(spec.max_megapixels, spec.max_faces, spec.min_face_pixels))


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
