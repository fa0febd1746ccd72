"""What a request asks of the app tier, beside plain recognition. Pure.

Each operation is a value in the field `operation` of a `RecognitionRequest`; its result is a `RecognitionResult`.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from facerec.message_base import Message, ObjectRef, Ratio

TemplateId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
ModelId = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
"""It names a folder, too."""
MAX_NEAREST = 4096
"""As many matches as Rekognition returns at most."""


class Recognise(Message):
    """Find the faces of a photo, and compare each with the people of the collection."""

    kind: Literal["recognise"] = "recognise"
    nearest: Annotated[int, Field(ge=0, le=MAX_NEAREST)] = 0
    """How many of the nearest people `Face.nearest` lists, whatever their similarity."""


class Detect(Message):
    """Find the faces of a photo; they are compared with nobody."""

    kind: Literal["detect"] = "detect"


class Compare(Message):
    """Compare the largest face of the photo with every face of a second photo."""

    kind: Literal["compare"] = "compare"
    target: ObjectRef
    """The second photo, in the input bucket."""


class Verify(Message):
    """Compare every face of the photo with one template, or with the templates of one person."""

    kind: Literal["verify"] = "verify"
    template_id: TemplateId | None = None
    identity: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "Verify":
        if (self.template_id is None) == (self.identity is None):
            raise ValueError("give either template_id or identity")
        return self


class SearchTemplate(Message):
    """Compare one template with the people of its collection, without itself; there is no photo."""

    kind: Literal["search_template"] = "search_template"
    template_id: TemplateId
    nearest: Annotated[int, Field(ge=1, le=MAX_NEAREST)] = 1


class Enrol(Message):
    """Enrol faces of the photo for a person."""

    kind: Literal["enrol"] = "enrol"
    identity: str | None = None
    """`None`: each face is a person of its own, named by the id of its template (Rekognition's IndexFaces)."""
    faces: Literal["only", "dominant", "primary", "all", "numbered"] = "dominant"
    """`only` refuses a photo with several faces; `all` takes each, of which one alone can be `identity`."""
    number: Annotated[int, Field(ge=0)] = 0
    """With `numbered`: the place of the face in `RecognitionResult.faces` of the same photo."""
    max_faces: Annotated[int, Field(ge=1)] | None = None
    """With `all`: so many, the largest first."""
    exact_name: bool = False
    force: bool = False
    """Enrol also a small face, one that is hardly a face to the detector, or one of poor quality."""
    min_probability: Ratio | None = None
    """Faces with a lower detection probability are left out."""
    external_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Rekognition's ExternalImageId, which is stored with each template."""


class CheckEnrolment(Message):
    """Say what `Enrol` would do with each face of the photo, whatever the name; nothing is stored."""

    kind: Literal["check_enrolment"] = "check_enrolment"


class Reject(Message):
    """Remember that a face of the photo is not this person: "this is not X"."""

    kind: Literal["reject"] = "reject"
    identity: str
    face: Annotated[int, Field(ge=0)] = 0
    """Its place in `RecognitionResult.faces` of the same photo."""


class Reembed(Message):
    """Add a template of another model for the face of a template, from its kept photo in the gallery bucket."""

    kind: Literal["reembed"] = "reembed"
    template_id: TemplateId
    model_id: ModelId
    """The other model: one of the two of the migration that runs."""


class SearchUnknown(Message):
    """Compare the faces of the photo with the unknown people of the collection; none is founded or counted."""

    kind: Literal["search_unknown"] = "search_unknown"


Operation = Annotated[
    Recognise | Detect | Compare | Verify | SearchTemplate | Enrol | CheckEnrolment | Reject | Reembed | SearchUnknown,
    Field(discriminator="kind"),
]
OPERATIONS = (
    "recognise",
    "detect",
    "compare",
    "verify",
    "search_template",
    "enrol",
    "check_enrolment",
    "reject",
    "reembed",
    "search_unknown",
)
"""Their kinds."""
