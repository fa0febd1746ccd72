"""The manifest of a gallery's archive, `facerec.gallery.archive`: its fields, and the checks of each."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from facerec.gallery.damaged import MAX_DIMENSION
from facerec.gallery.names import MAX_IDENTITY_LENGTH, InvalidName, valid_identity
from facerec.message_base import CollectionName, Ratio
from facerec.object_keys import MAX_FILE_NAME
from facerec.ports import DamagedTemplate

READING = "reading"
"""The context of a check of what is read, not written."""
MAX_EXTERNAL_ID = 255
_ID_LENGTH = 32
_VERSION_1_DIMENSION = 512


def _read_identity(name: str, info: ValidationInfo) -> str:
    """Check a name that is read; one that an earlier version stored is written as it is."""
    try:
        return valid_identity(name, exact=True) if info.context == READING else name
    except InvalidName as exc:
        raise ValueError(str(exc)) from exc


ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Name = Annotated[
    # A decomposed name is longer than the composed one, whose length counts.
    str, Field(max_length=4 * MAX_IDENTITY_LENGTH), AfterValidator(_read_identity)
]


class RawEntry(BaseModel):
    """A template of which only the model is checked, because the places of the embeddings depend on it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_id: ModelId


class Entry(RawEntry):
    """A template without its embedding, in the fields of `Template`."""

    model_config = ConfigDict(extra="ignore")

    template_id: _Id
    identity: _Name
    source: Annotated[str, Field(max_length=MAX_FILE_NAME)]
    probability: Ratio
    enrolled_at: AwareDatetime
    quality: Ratio | None = None
    external_id: Annotated[str, Field(min_length=1, max_length=MAX_EXTERNAL_ID)] | None = None


class RejectionEntry(RawEntry):
    """A rejection without its embedding, in the fields of `Rejection`."""

    model_config = ConfigDict(extra="ignore")

    rejection_id: _Id
    identity: _Name
    source: Annotated[str, Field(max_length=MAX_FILE_NAME)]
    rejected_at: AwareDatetime


class MergeEntry(BaseModel):
    """A merge, in the fields of `MergeRecord`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    merge_id: _Id
    source: _Name
    into: _Name
    templates: dict[_Name, tuple[_Id, ...]]
    rejections: dict[_Name, tuple[_Id, ...]] = {}
    merged_at: AwareDatetime
    by: Annotated[str, Field(max_length=MAX_FILE_NAME)] = ""


def read_entry(values: Mapping[str, Any], number: int, context: str | None = None) -> Entry | DamagedTemplate:
    """Return the template with these values, or why it is none; the context `READING` checks the name, too."""
    try:
        return Entry.model_validate(values, context=context)
    except ValidationError as exc:
        identifier = values.get("template_id")
        shown = identifier if isinstance(identifier, str) and len(identifier) <= _ID_LENGTH else f"entry {number}"
        return DamagedTemplate(shown, first_problem(exc))


def first_problem(error: ValidationError) -> str:
    """Return what is wrong first, without the value."""
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"its {problem['loc'][0]} is wrong: {problem['msg']}"


class Manifest(BaseModel):
    """`manifest.json`, of which templates, rejections and merges are checked one by one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["facerec-gallery"]
    version: Literal[1, 2, 3]
    collection: CollectionName
    exported_at: AwareDatetime
    dimensions: dict[ModelId, Annotated[int, Field(ge=1, le=MAX_DIMENSION)]] = {}
    templates: tuple[SerializeAsAny[RawEntry], ...]
    rejections: tuple[SerializeAsAny[RawEntry], ...] = ()
    merges: tuple[dict[str, Any], ...] = ()
    names: tuple[str, ...] = ()
    """People without templates."""

    @model_validator(mode="after")
    def _every_dimension_known(self) -> Self:
        unknown = {entry.model_id for entry in (*self.templates, *self.rejections)} - self.dimensions.keys()
        if unknown and self.version > 1:
            raise ValueError(f"the dimension of model {min(unknown)} is missing")
        return self

    @property
    def lengths(self) -> list[int]:
        """The dimension of each template's embedding."""
        return self._lengths(self.templates)

    @property
    def rejection_lengths(self) -> list[int]:
        """The dimension of each rejection's embedding."""
        return self._lengths(self.rejections)

    def _lengths(self, entries: Sequence[RawEntry]) -> list[int]:
        if self.version == 1:
            return [_VERSION_1_DIMENSION] * len(entries)
        return [self.dimensions[entry.model_id] for entry in entries]
