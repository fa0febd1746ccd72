"""The bodies of the Rekognition API's calls, with the service's limits, and the tokens of pages.

A token is the last item of its page, so the next page is the same whatever was removed meanwhile.
"""

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from facerec.message_base import CollectionName
from facerec.operations import MAX_NEAREST
from facerec.web.api.rekognition.errors import INVALID_PARAMETER, RekognitionError

IMAGE_BYTES = 5 * 1024 * 1024
"""The service's limit for an image in a request."""
MAX_PAGE = 4096
DEFAULT_MATCHES = 80
DEFAULT_THRESHOLD = 80.0

Percent = Annotated[float, Field(ge=0, le=100)]
QualityFilter = Literal["NONE", "AUTO", "LOW", "MEDIUM", "HIGH"]
FaceId = Annotated[str, AfterValidator(lambda text: UUID(text).hex)]
"""With dashes or without; read as the id of a template."""


class Body(BaseModel):
    """The base of the bodies: frozen, and fields that it does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, alias_generator=to_pascal)


class S3Object(Body):
    """An image in a bucket."""

    bucket: str
    name: str
    version: str | None = None


class Image(Body):
    """An image: one of the two."""

    bytes_: str | None = Field(None, alias="Bytes")
    """In base64."""
    s3_object: S3Object | None = None


class OfCollection(Body):
    """A call about one collection."""

    collection_id: CollectionName


class Page(Body):
    """A call whose answer has pages."""

    next_token: str | None = None
    max_results: Annotated[int, Field(ge=0, le=MAX_PAGE)] | None = None


class ListFaces(OfCollection, Page):
    """ListFaces."""

    face_ids: Annotated[tuple[FaceId, ...], Field(min_length=1, max_length=MAX_PAGE)] | None = None
    user_id: str | None = None


class DeleteFaces(OfCollection):
    """DeleteFaces."""

    face_ids: Annotated[tuple[FaceId, ...], Field(min_length=1, max_length=MAX_PAGE)]


class IndexFaces(OfCollection):
    """IndexFaces."""

    image: Image
    external_image_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.\-:]+$", max_length=255)] | None = None
    max_faces: Annotated[int, Field(ge=1)] | None = None
    quality_filter: QualityFilter = "AUTO"


class Search(OfCollection):
    """The base of the two searches."""

    max_faces: Annotated[int, Field(ge=1, le=MAX_NEAREST)] = DEFAULT_MATCHES
    face_match_threshold: Percent = DEFAULT_THRESHOLD


class SearchFaces(Search):
    """SearchFaces."""

    face_id: FaceId


class SearchFacesByImage(Search):
    """SearchFacesByImage."""

    image: Image
    quality_filter: QualityFilter = "NONE"


class DetectFaces(Body):
    """DetectFaces."""

    image: Image


class CompareFaces(Body):
    """CompareFaces."""

    source_image: Image
    target_image: Image
    similarity_threshold: Percent = DEFAULT_THRESHOLD
    quality_filter: QualityFilter = "NONE"


Shape = TypeVar("Shape", bound=Body)


def parse(shape: type[Shape], body: bytes) -> Shape:
    """Read a body; raises `RekognitionError`."""
    try:
        return shape.model_validate_json(body or b"{}")
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RekognitionError("SerializationException", "the body is not JSON") from exc
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RekognitionError(INVALID_PARAMETER, f"{where}: {first['msg']}") from exc


def page_of(ordered: Sequence[str], token: str | None, size: int) -> tuple[list[str], str | None]:
    """Return the items of a page, and the last of them if there are more."""
    after = last_of(token)
    rest = [item for item in ordered if item > after]
    return rest[:size], rest[size - 1] if len(rest) > size else None


def token_of(last: str | None) -> dict[str, str]:
    """Return the field with the token of the next page, if there is one."""
    return {} if last is None else {"NextToken": urlsafe_b64encode(last.encode()).decode()}


def last_of(token: str | None) -> str:
    """Return the last item of the page before; raises `RekognitionError` for a token that is none of ours."""
    try:
        return b64decode((token or "").encode(), b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise RekognitionError("InvalidPaginationTokenException", "this pagination token is not valid") from exc
