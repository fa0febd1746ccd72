"""Who may call the Rekognition API: signatures of boto3's own signer, scopes and owners of collections."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from werkzeug.test import TestResponse

from facerec.api_keys import ApiKey, Scope, Token, issue, revoked, rotated
from facerec.ports import CollectionRecord
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, running, upload
from tests.support.logs import capture_logs
from tests.support.rekognition import connect, make_client

URL = "http://facerec.test"
LIST = ("ListCollections", b'{"MaxResults": 10}')


class Guarded:
    """A tier that asks for keys."""

    def __init__(self, **web: Any) -> None:
        self.keys = InMemoryApiKeys()
        self.clock = Clock()
        self.tier = FakeWebTier(Settings(web=WebSettings(**web)), keys=self.keys, clock=self.clock, working=True)

    def key(self, *scopes: Scope, signing: bool = True, **options: Any) -> tuple[ApiKey, Token]:
        """A stored key that signs."""
        options.setdefault("now", datetime.now(UTC) - timedelta(hours=1))
        key, token = issue("photo app", scopes or [Scope.RECOGNISE, Scope.ENROL], signing=signing, **options)
        self.keys.put(key)
        return key, token

    def client(self, token: Token) -> Any:
        """boto3's client with a key."""
        client = make_client(URL, token.key_id, token.secret)
        connect(client, self.tier.app)
        return client

    def send(self, token: Token, body: bytes = LIST[1], **changes: Any) -> TestResponse:
        """List the collections by a request that is changed after it was signed."""
        return self.post(signed(token, **changes.pop("sign", {})) | changes.pop("headers", {}), body)

    def post(self, headers: dict[str, str], body: bytes = LIST[1]) -> TestResponse:
        """Send a request as it is."""
        return self.tier.app.test_client().post("/", base_url=URL, data=body, headers=headers)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """The tier."""
    made = Guarded()
    with running(made.tier):
        yield made


def signed(
    token: Token, body: bytes = LIST[1], service: str = "rekognition", at: datetime | None = None
) -> dict[str, str]:
    """The headers of a signed request that lists the collections."""
    headers = {"X-Amz-Target": f"RekognitionService.{LIST[0]}", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"{URL}/", headers, data=body)
    signer = SigV4Auth(Credentials(token.key_id, token.secret), service, "us-east-1")
    request.context["timestamp"] = request.headers["X-Amz-Date"] = f"{at or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )
    return dict(request.headers.items())


def answer(reply: TestResponse) -> tuple[int, str]:
    """The status of a reply and the name of its error."""
    assert reply.headers["x-amzn-RequestId"]
    return reply.status_code, str(json.loads(reply.data).get("__type", ""))


def code_of(call: Callable[..., object], **arguments: object) -> str:
    """The name of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    code: str = caught.value.response["Error"]["Code"]
    return code


def test_signed_request_is_served(guarded: Guarded) -> None:
    """The clock may be a little wrong; the line of the log has the key, and no secret."""
    key, token = guarded.key()
    assert guarded.client(token).list_collections()["CollectionIds"] == ["default"]
    assert answer(guarded.send(token, sign={"at": datetime.now(UTC) - timedelta(minutes=4)}))[0] == 200
    with capture_logs() as lines:
        assert guarded.client(token).detect_faces(Image={"Bytes": photo("Ada")})["FaceDetails"]
    assert [line["event"] for line in lines if token.secret in repr(line)] == []
    assert key.key_id == token.key_id


def test_request_that_was_changed_is_refused(guarded: Guarded) -> None:
    """Its body, a signed header, or the service that it was signed for."""
    _, token = guarded.key()
    for reply in (
        guarded.send(token, b'{"MaxResults": 11}'),
        guarded.send(token, headers={"X-Amz-Target": "RekognitionService.DetectFaces"}),
        guarded.send(token, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
        guarded.send(token, sign={"service": "s3"}),
        guarded.send(replace(token, secret="x" * 43)),
    ):
        assert answer(reply) == (400, "InvalidSignatureException")
    assert not guarded.tier.tasks.requests


@pytest.mark.parametrize("minutes", [-6, 6])
def test_signature_of_another_time_is_refused(guarded: Guarded, minutes: int) -> None:
    """A request that was recorded cannot be sent again later. It is no guess."""
    _, token = guarded.key()
    for _ in range(40):
        reply = guarded.send(token, sign={"at": datetime.now(UTC) + timedelta(minutes=minutes)})
        assert answer(reply) == (400, "InvalidSignatureException")
    assert "clock" in reply.get_json(force=True)["Message"]


def test_request_without_a_good_key_is_refused(guarded: Guarded) -> None:
    """No key, an unknown, an expired and a revoked one."""
    expired = guarded.key(expires_in=timedelta(minutes=1))[1]
    key, gone = guarded.key()
    guarded.keys.put(revoked(key, datetime.now(UTC)))
    headers = {"X-Amz-Target": f"RekognitionService.{LIST[0]}"}
    assert answer(guarded.post(headers)) == (400, "MissingAuthenticationTokenException")
    for token in (Token("0" * 12, "x" * 43), Token("AKIAIOSFODNN7EXAMPLE", "x"), expired, gone):
        assert answer(guarded.send(token)) == (400, "UnrecognizedClientException")


def test_secret_of_a_signing_key_cannot_be_presented(guarded: Guarded) -> None:
    """Nor can an ordinary key sign; it is presented to this API, too."""
    _, signing = guarded.key()
    _, ordinary = guarded.key(signing=False)
    headers = {"X-Amz-Target": f"RekognitionService.{LIST[0]}"}
    assert answer(guarded.post(headers | {"x-api-key": signing.reveal()})) == (400, "UnrecognizedClientException")
    assert answer(guarded.send(ordinary)) == (400, "InvalidSignatureException")
    assert answer(guarded.post(headers | {"x-api-key": ordinary.reveal()})) == (200, "")


def test_signature_opens_no_other_route(guarded: Guarded) -> None:
    """The upload to the same path needs a key."""
    _, token = guarded.key()
    headers = signed(token)
    del headers["X-Amz-Target"]
    assert guarded.post(headers).status_code == 401
    assert upload(guarded.tier.app.test_client()).status_code == 401


def test_rotated_key_signs_with_both_secrets_within_the_grace(guarded: Guarded) -> None:
    """Also where the key was read before."""
    key, old = guarded.key()
    assert answer(guarded.send(old))[0] == 200
    changed, new = rotated(key, now=datetime.now(UTC), grace=timedelta(hours=1))
    guarded.keys.put(changed)
    guarded.clock.now += 3
    assert [answer(guarded.send(token))[0] for token in (new, old)] == [200, 200]
    again, newest = rotated(changed, now=datetime.now(UTC) - timedelta(hours=2), grace=timedelta(hours=1))
    guarded.keys.put(again)
    guarded.clock.now += 31
    assert [answer(guarded.send(token))[0] for token in (newest, new, old)] == [200, 400, 400]


def test_guesses_and_many_requests_are_throttled() -> None:
    """As those of other keys; boto3 waits and tries again."""
    guarded = Guarded(auth_failures="2/minute", rate_limit="3/minute")
    _, token = guarded.key()
    with running(guarded.tier):
        served = [answer(guarded.send(token)) for _ in range(4)]
        guesses = [answer(guarded.send(Token("0" * 12, "x" * 43))) for _ in range(3)]
    assert served == [(200, "")] * 3 + [(400, "ThrottlingException")]
    assert guesses == [(400, "UnrecognizedClientException")] * 2 + [(400, "ThrottlingException")]


def test_key_calls_what_its_scope_allows(guarded: Guarded) -> None:
    """Enrolment needs another scope than recognition."""
    reader = guarded.client(guarded.key(Scope.RECOGNISE)[1])
    writer = guarded.client(guarded.key(Scope.ENROL)[1])
    image = {"Bytes": photo("Ada")}
    assert code_of(reader.create_collection, CollectionId="c") == "AccessDeniedException"
    assert code_of(reader.index_faces, CollectionId="default", Image=image) == "AccessDeniedException"
    assert code_of(reader.list_faces, CollectionId="default") == "AccessDeniedException"
    assert writer.index_faces(CollectionId="default", Image=image)["FaceRecords"]
    assert reader.search_faces_by_image(CollectionId="default", Image=image)["FaceMatches"]
    assert code_of(writer.search_faces_by_image, CollectionId="default", Image=image) == "AccessDeniedException"


def test_collection_is_used_by_the_key_that_created_it(guarded: Guarded) -> None:
    """And by scope admin; another key learns only that it exists."""
    owner, other = (guarded.client(guarded.key()[1]) for _ in range(2))
    admin = guarded.client(guarded.key(Scope.ADMIN)[1])
    owner.create_collection(CollectionId="friends")
    image = {"Bytes": photo("Ada")}
    (record,) = owner.index_faces(CollectionId="friends", Image=image)["FaceRecords"]
    face = record["Face"]["FaceId"]
    assert owner.search_faces(CollectionId="friends", FaceId=face)["FaceMatches"] == []
    for call, arguments in (
        (other.describe_collection, {}),
        (other.delete_collection, {}),
        (other.index_faces, {"Image": image}),
        (other.list_faces, {}),
        (other.delete_faces, {"FaceIds": [face]}),
        (other.search_faces_by_image, {"Image": image}),
        (other.search_faces, {"FaceId": face}),
    ):
        assert code_of(call, CollectionId="friends", **arguments) == "AccessDeniedException"
    assert code_of(other.create_collection, CollectionId="friends") == "ResourceAlreadyExistsException"
    assert owner.list_collections()["CollectionIds"] == ["default", "friends"]
    assert other.list_collections()["CollectionIds"] == ["default"]
    assert admin.list_collections()["CollectionIds"] == ["default", "friends"]
    assert admin.describe_collection(CollectionId="friends")["FaceCount"] == 1
    owner.delete_collection(CollectionId="friends")
    assert code_of(owner.describe_collection, CollectionId="friends") == "ResourceNotFoundException"


def test_collection_of_the_operator_is_not_deleted_by_its_key(guarded: Guarded) -> None:
    """Another client could create it then, and would read what this key enrols later."""
    _, token = guarded.key(collection="staff")
    guarded.tier.collections.create(CollectionRecord("staff", None, datetime.now(UTC)))
    client = guarded.client(token)
    assert client.describe_collection(CollectionId="staff")["FaceCount"] == 0
    assert code_of(client.delete_collection, CollectionId="staff") == "AccessDeniedException"
    assert code_of(guarded.client(guarded.key()[1]).create_collection, CollectionId="staff").startswith("Resource")
