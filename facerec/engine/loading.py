"""Opens the model that the settings name: its artefact, and an engine for commands that look at photos themselves."""

from typing import TYPE_CHECKING

from facerec.errors import ConfigurationError
from facerec.settings import Settings
from model.artefact import Artefact, ArtefactError
from model.packs import PERMISSIVE, RESEARCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.engines import Engine
    from model.faces import ImageAnalysis


def load_artefact(settings: Settings) -> Artefact:
    """Return the artefact; raises `ConfigurationError` where there is none, or its licence is not accepted."""
    try:
        artefact = Artefact.load(settings.model.dir)
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc
    check_licence(settings, artefact.pack, artefact.licence)
    return artefact


def check_licence(settings: Settings, pack: str, licence: str) -> None:
    """Raise `ConfigurationError` unless the settings accept the licence of a pack's weights."""
    if licence == RESEARCH and settings.model.licence == PERMISSIVE:
        raise ConfigurationError(
            f"the weights of the pack {pack} are for non-commercial research only: set FACEREC_MODEL__LICENCE=research "
            "if that is what you do, or build another one with `facerec model build --pack open`"
        )


def open_engine(settings: Settings, artefact: Artefact, name: str | None = None) -> "Engine":
    """Return the artefact's engine on all cores, `name` instead of the settings'; raises `ConfigurationError`."""
    from facerec.engine.cores import available_cores  # noqa: PLC0415 - only a command that looks at photos needs it
    from model import engines  # noqa: PLC0415 - same

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


def analyser(settings: Settings, engine: "Engine") -> "Callable[[bytes], ImageAnalysis]":
    """Return what turns a photo's bytes into faces, with the settings' limits; it raises `InvalidImage`."""
    from model.analysis import Limits, analyse  # noqa: PLC0415 - as above

    limits = Limits(settings.max_megapixels, settings.model.max_faces, settings.model.min_face_pixels)
    return lambda photo: analyse(engine, photo, limits)
