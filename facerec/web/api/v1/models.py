"""What the API answers, beside errors: the worker's result as programs read it."""

from typing import Annotated

from flask import Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from facerec.gallery.people import shown_id
from facerec.messages import Face, RecognitionResult, ResultMatch
from facerec.web.results import json_error


class Match(ResultMatch):
    """A person who is similar to a face."""

    @field_validator("template_id")
    @classmethod
    def _shown(cls, template_id: str | None) -> str | None:
        return None if template_id is None else shown_id(template_id)


class ResultFace(Face):
    """A face of the photo."""

    primary: bool = False
    """Whether it is the photo's subject, which decides `result` and `outcome`; of `source_faces` the compared one."""
    matches: tuple[Match, ...] = ()
    nearest: tuple[Match, ...] = ()


class Result(RecognitionResult):
    """What was found on a photo."""

    faces: tuple[ResultFace, ...] = ()
    source_faces: tuple[ResultFace, ...] = ()
    matches: tuple[Match, ...] = ()

    @classmethod
    def of(cls, result: RecognitionResult) -> "Result":
        """Return a worker's result as the API shows it."""
        fields = result.model_dump()
        for faces in (fields["faces"], fields["source_faces"]):
            for place, face in enumerate(faces):
                face["primary"] = place == 0
        for enrolment in fields["enrolments"]:
            if enrolment["template_id"] is not None:
                enrolment["template_id"] = shown_id(enrolment["template_id"])
        return cls.model_validate(fields)


class PhotoPath(BaseModel):
    """An enrolled photo."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    """As its enrolment gave it."""


def no_photo(path: PhotoPath) -> Response:
    """Make the error for a photo that is not enrolled."""
    return json_error(404, f"there is no photo {path.id} in this collection")
