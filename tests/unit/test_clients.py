"""What our clients put on the wire; no socket is opened."""

from typing import Any

from botocore.awsrequest import AWSResponse

from facerec.aws.clients import Clients
from facerec.settings import Settings


def test_an_object_goes_out_with_its_head(monkeypatch: Any) -> None:
    """Botocore would ask first whether the body is welcome: a round trip for each result."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, None)  # type: ignore[arg-type]  # its content is set below

    s3 = Clients(Settings()).s3
    s3.meta.events.register("before-send.s3.PutObject", answer)  # type: ignore[arg-type]  # the stub forbids answers
    monkeypatch.setattr(AWSResponse, "content", b"")
    s3.put_object(Bucket="bucket", Key="key", Body=b"photo")
    [request] = sent
    assert "Expect" not in request.headers
