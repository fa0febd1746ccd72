"""The base of the messages, and the types that they share. Pure."""

from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from facerec.errors import InvalidMessage
from facerec.object_keys import base_name

DEFAULT_COLLECTION = "default"
CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=64)]
"""Not dots alone: S3 refuses a key that begins with a step in a path."""
FileName = Annotated[str, AfterValidator(base_name)]
"""Cut, not refused, if it is too long: a photo is recognised whatever its name, which is only shown."""
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]

_SHOWN_PROBLEMS = 5
_LONGEST_FIELD = 200
"""In characters: the name of a field may come from the message."""


def problems(error: ValidationError) -> str:
    """The first problems; a message of 128 KB may have 60 000 of them, which would make a log line of 4 MB."""
    shown = "; ".join(
        f"{'.'.join(map(str, each['loc']))[:_LONGEST_FIELD] or 'message'}: {each['msg'][:_LONGEST_FIELD]}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN_PROBLEMS]
    )
    more = error.error_count() - _SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


class SchemaOnce(BaseModel):
    """A base whose models make their JSON schema once.

    The API's library asks for it at each route, and for that of a query in each request; it takes 0.6 to 10 ms.
    """

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the schema, which the caller must not change."""
        return _schema(cls, arguments, tuple(options.items()))


@cache
def _schema(
    model: type[SchemaOnce], arguments: tuple[Any, ...], options: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    return super(SchemaOnce, model).model_json_schema(*arguments, **dict(options))


class Message(SchemaOnce):
    """The base of the messages: frozen, read by `parse` and written by `to_json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def parse(cls, message: str | bytes | dict[str, Any]) -> Self:
        """Read a message from JSON text or from its decoded object; raises `InvalidMessage`."""
        try:
            if isinstance(message, str | bytes):
                return cls.model_validate_json(message)
            return cls.model_validate(message)
        except ValidationError as exc:
            raise InvalidMessage(f"unreadable {cls.__name__}: {problems(exc)}") from exc

    def to_json(self) -> str:
        """The message as JSON text, the inverse of `parse`; ASCII, because SQS refuses some Unicode characters."""
        return self.model_dump_json(ensure_ascii=True)


class ObjectRef(Message):
    """An object in the store, with its size in bytes."""

    bucket: str
    key: str
    size: Annotated[int, Field(ge=0)]
