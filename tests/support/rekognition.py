"""Clients of the Rekognition API: boto3's own, over a socket or straight into an application, and its service model."""

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.model import ListShape, Shape, StructureShape
from flask import Flask

OURS = {"UnsearchedFaces", "SearchedFaces"}
"""The fields that the service does not have."""
_MODEL = botocore.session.get_session().get_service_model("rekognition")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": float,
    "timestamp": float,
}


def make_client(url: str, access_key: str = "anybody", secret: str = "none") -> Any:  # noqa: S107 - open mode needs none
    """A client of a server, which does not try again."""
    session = boto3.Session(access_key, secret, region_name="eu-central-1")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=120, proxies={})
    return session.client("rekognition", endpoint_url=url, config=config)


class _Body:
    """The body of a response, as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        """Return its blocks."""
        yield self._body


def connect(client: Any, app: Flask) -> None:
    """Let a client send its requests into an application instead of a socket."""

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent: dict[str, Any] = dict(request.headers)
        sent = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()}
        reply = app.test_client().post("/", base_url=request.url, data=request.body, headers=sent)
        headers: Any = reply.headers
        return AWSResponse(request.url, reply.status_code, headers, _Body(reply.data))

    client.meta.events.register("before-send.rekognition", send)


def differences(operation: str, answer: Mapping[str, Any]) -> list[str]:
    """What the service's own model of an operation's answer does not know, or knows as another type."""
    shape = _MODEL.operation_model(operation).output_shape
    assert shape is not None
    return list(_differences(shape, {name: each for name, each in answer.items() if name not in OURS}, operation))


def _differences(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name, member in value.items():
            if name in shape.members:
                yield from _differences(shape.members[name], member, f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown"
    elif isinstance(shape, ListShape):
        for number, each in enumerate(value):
            yield from _differences(shape.member, each, f"{path}[{number}]")
    elif not isinstance(value, _TYPES[shape.type_name]) or value not in (shape.metadata.get("enum") or [value]):
        yield f"{path} is {value!r}"
