"""What the OpenAPI document says beside the routes: its head, the errors, the keys and the photos in bodies."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import pairwise
from textwrap import dedent
from typing import Any
from urllib.parse import quote

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.routing import BaseConverter

from facerec import __version__
from facerec.message_base import SchemaOnce, problems
from facerec.web.auth.access import needed_scopes
from facerec.web.auth.denials import UNDEFINED
from facerec.web.results import answer_outages, json_error

PREFIX = "/api/v1"

_PARAMETER = re.compile(r"<(?:[^<:]+:)?([^<>]+)>")

_ABOUT = """\
Faces of photos are found, compared and recognised; people are enrolled, renamed, merged and removed.

An API key goes into the header `x-api-key`, or as `Authorization: Bearer`; a server in open mode needs none.
A request uses the collection of its key. Every error is `{"message", "code"}`; the message says what to do.
"""

_UNREACHABLE = "a store that this needs cannot be reached right now: send the request again in a few seconds"

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}


class ApiError(SchemaOnce):
    """Every error."""

    message: str
    """One sentence that says what to do."""
    code: int
    """CompreFace's code of the error, 0 if it has none."""


class Query(SchemaOnce):
    """The base of queries: an unknown parameter, which may be a misspelt one, is an error."""

    # The fields of queries are parameters, which `generate_spec_json` does not find by a model.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Body(SchemaOnce):
    """The base of JSON bodies: of unknown fields and of other types than the document's they are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PersonConverter(BaseConverter):
    """A name in a path, which may hold slashes: escaped or not, the application sees no difference.

    The last part is no name of a route below it, so that these routes are not taken for people.
    """

    regex = r"[^/](?:.*[^/])?(?<!/photos)(?<!/merge)(?<!/unmerge)(?<!/not)"
    part_isolating = False
    weight = 200

    def to_url(self, value: str) -> str:
        """Return the name in an address; with bare slashes a browser would take `a/../b` for `b`."""
        return quote(value, safe="")


class UnknownConverter(BaseConverter):
    """The id of an unknown person in a path, beside the route `search`."""

    regex = r"(?!search(?:/|$))[^/]+"


class DescribedApp(OpenAPI):
    """A Flask application that collects the OpenAPI document of its described routes (`Flask` of flask-openapi3)."""

    def __init__(self, import_name: str, **options: Any) -> None:
        super().__init__(
            import_name,
            info=Info(title="facerec", version=__version__, description=_ABOUT),
            security_schemes={
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            doc_ui=False,
            validation_error_status=400,
            validation_error_model=ApiError,
            validation_error_callback=_invalid,
            **options,
        )
        self.url_map.converters["person"] = PersonConverter
        self.url_map.converters["unknown"] = UnknownConverter

    def generate_spec_json(self) -> None:
        """Make the document, and add what the library leaves out: scopes, and the docstrings of fields."""
        super().generate_spec_json()  # type: ignore[no-untyped-call] # the library's
        for rule in self.url_map.iter_rules():
            path = self.spec_json["paths"].get(_PARAMETER.sub(r"{\1}", rule.rule), {})
            for method in rule.methods or ():
                if operation := path.get(method.lower()):
                    scopes = needed_scopes(self.view_functions[rule.endpoint])
                    about = operation.get("description", "").replace("<br/>", "\n").strip()
                    needed = f"A key needs the scope `{'` or `'.join(scopes)}`." if scopes else "It needs no key."
                    operation["description"] = f"{about}\n\n{needed}".strip()
        for model in _subclasses(BaseModel):
            schema = self.spec_json["components"]["schemas"].get(model.__name__)
            if schema is not None and model.__module__.startswith("facerec."):
                for name, about in _field_docstrings(model).items():
                    schema.get("properties", {}).get(name, {}).setdefault("description", about)


def described(name: str, import_name: str, about: str) -> APIBlueprint:
    """Make a blueprint under `/api/v1` whose routes are in the document, under its name."""
    api = APIBlueprint(
        name,
        import_name,
        url_prefix=PREFIX,
        abp_tags=[Tag(name=name, description=about)],
        abp_security=[{"key": []}, {"bearer": []}, {}],
        abp_responses=errors(400, 401, 403, 421, 429, 500, 503),
        operation_id_callback=_operation_id,
    )
    answer_outages(api, _UNREACHABLE)
    api.register_error_handler(RecursionError, lambda _: json_error(400, "the JSON is nested too deeply"))
    return api


def errors(*statuses: int) -> dict[str | int | HTTPStatus, Any]:
    """Return the responses of a route for these statuses; each has the form of every error."""
    schema = {"schema": {"$ref": f"#/components/schemas/{ApiError.__name__}"}}
    return {
        status: {"content": {"application/json": dict(schema)}}
        | ({"headers": _RETRY_AFTER} if status in {429, 503} else {})
        for status in statuses
    }


def as_json(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make the response of a route from the model that its description names."""
    return Response(model.model_dump_json(), status=status, content_type="application/json", headers=headers)


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings under the fields of a model and of its bases.

    Pydantic can read them when it makes a class, but that would slow the start of every tier by 33 ms.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base.__module__.startswith("facerec."):
            [definition] = ast.parse(dedent(inspect.getsource(base))).body
            for field, after in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
                match field, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(about))):
                        found[name] = inspect.cleandoc(about)
    return found


def _invalid(error: ValidationError) -> Response:
    return json_error(400, problems(error), UNDEFINED)


def _operation_id(*, name: str, path: str, method: str) -> str:
    del path, method
    return name
