"""The query parameters of CompreFace's calls. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from facerec.operations import MAX_NEAREST
from facerec.web.api.compreface.codes import MISSING_PARAMETER, OUT_OF_RANGE, ApiError

PAGE_SIZE, MAX_PAGE_SIZE = 20, 2000
"""CompreFace's own."""

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoQuery:
    """What a client wants to know of the faces of a photo."""

    limit: int = 0
    """The most faces, the largest first; 0 is all."""
    prediction_count: int = 1
    """The most subjects of a face."""
    det_prob_threshold: float = 0.0
    """The least detection probability of a face."""
    similarity_threshold: float = 0.0
    """Ours: the least similarity of a subject, on CompreFace's scale."""
    landmarks: bool = False
    status: bool = False
    """Whether to tell times and versions."""


def photo_query(values: Mapping[str, str]) -> PhotoQuery:
    """Read the parameters; unknown ones and unknown face plugins are ignored. Raises `ApiError`."""
    plugins = {plugin.strip() for plugin in values.get("face_plugins", "").split(",")}
    return PhotoQuery(
        limit=_whole(values, "limit", 0, least=0),
        prediction_count=min(_whole(values, "prediction_count", 1, least=1), MAX_NEAREST),
        det_prob_threshold=share(values, "det_prob_threshold"),
        similarity_threshold=share(values, "similarity_threshold"),
        landmarks="landmarks" in plugins,
        status=flag(values, "status"),
    )


def page_query(values: Mapping[str, str]) -> tuple[int, int]:
    """Return page, from 0, and size; raises `ApiError`."""
    return _whole(values, "page", 0, least=0), min(_whole(values, "size", PAGE_SIZE, least=1), MAX_PAGE_SIZE)


def subject_of(values: Mapping[str, str]) -> str:
    """Return the parameter `subject`; raises `ApiError`."""
    subject = values.get("subject")
    if subject is None:
        raise ApiError(400, "the parameter subject is missing: name the person", MISSING_PARAMETER)
    return subject


def flag(values: Mapping[str, str], name: str) -> bool:
    """Return a parameter that is true or false, in any case; raises `ApiError`."""
    text = values.get(name) or "false"
    if text.lower() not in _BOOLEANS:
        raise ApiError(400, f"{name} is true or false, not {text!r}", OUT_OF_RANGE)
    return _BOOLEANS[text.lower()]


def share(values: Mapping[str, str], name: str) -> float:
    """Return a parameter from 0 to 1, 0 if it is missing; raises `ApiError`."""
    text = values.get(name)
    if not text:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ApiError(400, f"{name} is a number from 0.0 to 1.0, not {text!r}", OUT_OF_RANGE)
    return number


def _whole(values: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = values.get(name)
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < least:
        raise ApiError(400, f"{name} is a whole number from {least} on, not {text!r}", OUT_OF_RANGE)
    return number
