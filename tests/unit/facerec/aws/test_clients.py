"""What our clients put on the wire, and what AWS's errors become; no socket is opened."""

from importlib.util import find_spec
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.errors import ConfigurationError, Refused, Throttled, Transient
from facerec.settings import Settings


@pytest.fixture
def sent(monkeypatch: Any) -> list[Any]:
    """The requests of an upload of one object, which is answered here."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    if find_spec("awscrt"):  # the extra `edge`
        monkeypatch.setattr("awscrt.auth.aws_sign_request", None)
    requests: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        requests.append(request)
        return AWSResponse(request.url, 200, {"x-amz-request-id": "id"}, None)  # type: ignore[arg-type]  # its content is set below

    s3 = Clients(Settings()).s3
    s3.meta.events.register("before-send.s3.PutObject", answer)  # type: ignore[arg-type]  # the stub forbids answers
    monkeypatch.setattr(AWSResponse, "content", b"")
    s3.put_object(Bucket="bucket", Key="key", Body=b"photo")
    return requests


def test_object_is_sent_with_its_head(sent: list[Any]) -> None:
    """Botocore would wait for an answer to the head first."""
    [request] = sent
    assert "Expect" not in request.headers


def test_request_is_signed_without_awscrt(sent: list[Any]) -> None:
    """Also where it is installed: in its callback a Ctrl-C would be lost, and the command would wait for ever."""
    [request] = sent
    assert request.headers["Authorization"].startswith(b"AWS4-HMAC-SHA256 ")


@pytest.mark.parametrize(
    ("code", "status", "error", "words"),
    [
        *((code, 403, ConfigurationError, "check the role") for code in (
            "AccessDenied", "AuthFailure", "OptInRequired", "RequestExpired", "UnauthorizedOperation"
        )),
        *((code, 400, Throttled, "retry later") for code in (
            "EC2ThrottledException", "KmsThrottled", "OverLimit", "RequestThrottledException", "ThrottledException"
        )),
        ("InternalError", 500, Transient, "retry later"),
        ("InvalidParameterValue", 400, ConfigurationError, "facerec provision"),
    ],
)  # fmt: skip
def test_error_of_aws_becomes_one_of_ours(code: str, status: int, error: type[Exception], words: str) -> None:
    """Its text says what to do."""
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(error, match=f"could not launch.*{words}"), translated("launch"):
        raise ClientError(answer, "RunInstances")


def test_missing_permission_is_named_without_the_account() -> None:
    """As in AWS's sentence, whose other parts may be shown to strangers by the web tier."""
    sentence = (
        "User: arn:aws:iam::123456789012:user/x is not authorized to perform: iam:PassRole on resource: arn:aws:y"
    )
    answer: Any = {"Error": {"Code": "AccessDenied", "Message": sentence}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with pytest.raises(ConfigurationError) as found, translated("deploy"):
        raise ClientError(answer, "CreateChangeSet")
    assert str(found.value) == (
        "could not deploy: AWS refused the credentials (AccessDenied: iam:PassRole); check the role"
    )


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        *((code, 400, Refused) for code in (
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", "EntityTooLarge", "InvalidMessageContents",
            "InvalidParameterValue", "InvalidURI", "KMS.DisabledException", "KeyTooLongError", "MetadataTooLarge",
            "ValidationException"
        )),
        ("InvalidObjectState", 403, Refused),
        ("400", 400, Refused),
        *((code, 404, ConfigurationError) for code in ("NoSuchBucket", "ResourceNotFoundException")),
        *((code, 403, ConfigurationError) for code in ("AccessDenied", "403")),
        ("KMS.ThrottlingException", 400, Throttled),
        ("InternalError", 500, Transient),
    ],
)  # fmt: skip
def test_refusal_of_one_object_is_no_wrong_configuration(code: str, status: int, error: type[Exception]) -> None:
    """Unless AWS would refuse every other one, too."""
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(error, match="could not store"), translated_for_one("store"):
        raise ClientError(answer, "HeadObject" if code.isdigit() else "PutObject")


def test_unreadable_answer_is_transient() -> None:
    """Botocore's error for it has neither of the usual base classes."""
    with pytest.raises(Transient, match="could not launch: invalid XML"), translated("launch"):
        raise ResponseParserError("invalid XML")
