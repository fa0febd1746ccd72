"""boto3's own client of Rekognition against the real web tier, queues, worker and model."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from facerec.processes.addresses import poll_until
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT
from tests.support.rekognition import differences, make_client

OBAMA, OBAMA_2, BIDEN, BIDEN_2, STRANGER, NOBODY = (
    (CHECKOUT / "examples" / name).read_bytes()
    for name in (
        "gallery/Barack Obama/official_portrait_2012.jpg",
        "probes/image_01.jpg",
        "gallery/Joe Biden/blue_room_2010.jpg",
        "probes/image_03.jpg",
        "probes/image_02.jpg",
        "probes/image_04.jpg",
    )
)
BUCKET = "photos-of-the-client"
_VISIBLE_SECONDS = 15.0


@pytest.fixture(scope="module")
def system(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One worker and one web process that asks for keys, and may read one more bucket."""
    environ = {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_WEB__AUTH": "keys",
        "FACEREC_WEB__IMAGE_BUCKETS": json.dumps([BUCKET]),
    }
    with LocalSystem(tmp_path_factory.mktemp("system"), environ=environ) as running:
        yield running


def client(system: LocalSystem, *scopes: str) -> Any:
    """boto3's client with new credentials, whose answers are compared with the service's model."""
    options = [word for scope in scopes or ("recognise", "enrol") for word in ("--scope", scope)]
    made = json.loads(system.run("keys", "create", "boto3", "--aws", "--json", *options).stdout)
    rekognition = make_client(system.url, made["aws_access_key_id"], made["aws_secret_access_key"])

    def check(http_response: Any, model: Any, **_: object) -> None:
        if http_response.status_code == 200:
            assert differences(model.name, json.loads(http_response.content)) == []

    rekognition.meta.events.register("after-call.rekognition", check)
    return rekognition


def two_faces() -> bytes:
    """A photo of Obama, and of Biden in half his size."""
    obama, biden = (Image.open(io.BytesIO(photo)).convert("RGB") for photo in (OBAMA, BIDEN))
    obama.thumbnail((600, 600))
    biden.thumbnail((300, 300))
    together = Image.new("RGB", (obama.width + biden.width, obama.height), "white")
    together.paste(obama, (0, 0))
    together.paste(biden, (obama.width, 0))
    buffer = io.BytesIO()
    together.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def code_of(call: Callable[..., object], **arguments: object) -> str:
    """The name of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    code: str = caught.value.response["Error"]["Code"]
    return code


def names(matches: list[dict[str, Any]]) -> list[str]:
    """Whom the matches of a search are."""
    return [match["Face"]["ExternalImageId"] for match in matches]


def test_people_are_indexed_searched_and_deleted(system: LocalSystem) -> None:
    """The life of a collection, by every call that it has."""
    rekognition = client(system)
    made = rekognition.create_collection(CollectionId="presidents")
    assert made["StatusCode"] == 200
    assert code_of(rekognition.create_collection, CollectionId="presidents") == "ResourceAlreadyExistsException"
    faces = {}
    for name, photo in (("obama", OBAMA), ("obama.2", OBAMA_2), ("biden", BIDEN)):
        indexed = rekognition.index_faces(
            CollectionId="presidents", Image={"Bytes": photo}, ExternalImageId=name, DetectionAttributes=["ALL"]
        )
        (record,) = indexed["FaceRecords"]
        assert record["Face"]["ExternalImageId"] == name
        assert record["FaceDetail"]["Confidence"] > 80
        assert 0 < record["Face"]["BoundingBox"]["Width"] < 1
        faces[name] = record["Face"]["FaceId"]
    assert rekognition.describe_collection(CollectionId="presidents")["FaceCount"] == 3

    pages = list(
        rekognition.get_paginator("list_faces").paginate(CollectionId="presidents", PaginationConfig={"PageSize": 2})
    )
    assert [len(page["Faces"]) for page in pages] == [2, 1]
    assert {face["FaceId"] for page in pages for face in page["Faces"]} == {*faces.values()}
    collections = rekognition.get_paginator("list_collections").paginate(PaginationConfig={"PageSize": 1})
    assert [page["CollectionIds"] for page in collections] == [["default"], ["presidents"]]

    search = rekognition.search_faces_by_image
    found = search(CollectionId="presidents", Image={"Bytes": BIDEN_2}, FaceMatchThreshold=90)
    assert names(found["FaceMatches"]) == ["biden"]
    assert found["FaceMatches"][0]["Face"]["FaceId"] == faces["biden"]
    assert found["FaceModelVersion"] == indexed["FaceModelVersion"]
    assert search(CollectionId="presidents", Image={"Bytes": STRANGER})["FaceMatches"] == []
    every = search(CollectionId="presidents", Image={"Bytes": STRANGER}, FaceMatchThreshold=0)["FaceMatches"]
    assert len(every) == 3
    assert all(match["Similarity"] < 80 for match in every)
    assert code_of(search, CollectionId="presidents", Image={"Bytes": NOBODY}) == "InvalidParameterException"
    similar = rekognition.search_faces(CollectionId="presidents", FaceId=faces["obama"])
    assert names(similar["FaceMatches"]) == ["obama.2"]

    removed = rekognition.delete_faces(CollectionId="presidents", FaceIds=[faces["biden"]])
    assert removed["DeletedFaces"] == [faces["biden"]]
    assert poll_until(
        lambda: not search(CollectionId="presidents", Image={"Bytes": BIDEN_2})["FaceMatches"], _VISIBLE_SECONDS
    )
    assert rekognition.delete_collection(CollectionId="presidents")["StatusCode"] == 200
    assert code_of(search, CollectionId="presidents", Image={"Bytes": BIDEN_2}) == "ResourceNotFoundException"


def test_search_tells_which_faces_it_left_out(system: LocalSystem) -> None:
    """The hooks are those of the documentation."""
    rekognition = client(system)
    rekognition.create_collection(CollectionId="duo")
    for name, photo in (("obama", OBAMA_2), ("biden", BIDEN_2)):
        rekognition.index_faces(CollectionId="duo", Image={"Bytes": photo}, ExternalImageId=name)

    def keep(http_response: Any, parsed: dict[str, Any], **_: object) -> None:
        parsed["UnsearchedFaces"] = json.loads(http_response.content)["UnsearchedFaces"]

    rekognition.meta.events.register("after-call.rekognition.SearchFacesByImage", keep)
    largest = rekognition.search_faces_by_image(CollectionId="duo", Image={"Bytes": two_faces()})
    assert names(largest["FaceMatches"]) == ["obama"]
    assert largest["ResponseMetadata"]["HTTPHeaders"]["x-facerec-unsearched-faces"] == "1"
    assert largest["UnsearchedFaces"][0]["BoundingBox"]["Left"] > 0.5

    rekognition.meta.events.register(
        "before-sign.rekognition.SearchFacesByImage",
        lambda request, **_: request.headers.add_header("x-facerec-search-all", "true"),
    )
    every = rekognition.search_faces_by_image(CollectionId="duo", Image={"Bytes": two_faces()})
    assert sorted(names(every["FaceMatches"])) == ["biden", "obama"]
    assert every["UnsearchedFaces"] == []


def test_faces_are_detected_and_compared(system: LocalSystem) -> None:
    """Without any collection; an image of a bucket is read by the web tier."""
    rekognition = client(system, "recognise")
    s3 = boto3.client(
        "s3",
        endpoint_url=system.environ["AWS_ENDPOINT_URL"],
        aws_access_key_id=system.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=system.environ["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="trips/two.jpg", Body=two_faces())
    image = {"S3Object": {"Bucket": BUCKET, "Name": "trips/two.jpg"}}
    details = rekognition.detect_faces(Image=image)["FaceDetails"]
    assert len(details) == 2
    assert {landmark["Type"] for landmark in details[0]["Landmarks"]} > {"eyeLeft", "mouthRight"}
    assert rekognition.detect_faces(Image={"Bytes": NOBODY})["FaceDetails"] == []
    compared = rekognition.compare_faces(SourceImage={"Bytes": BIDEN_2}, TargetImage=image)
    (match,), (unmatched,) = compared["FaceMatches"], compared["UnmatchedFaces"]
    assert match["Similarity"] > 90
    assert match["Face"]["BoundingBox"]["Left"] > 0.5 > unmatched["BoundingBox"]["Left"]
    assert 0 < compared["SourceImageFace"]["BoundingBox"]["Height"] < 1
    missing = {"S3Object": {"Bucket": BUCKET, "Name": "none.jpg"}}
    assert code_of(rekognition.detect_faces, Image=missing) == "InvalidS3ObjectException"
    foreign = {"S3Object": {"Bucket": "facerec-in-bucket", "Name": "any.jpg"}}
    assert code_of(rekognition.detect_faces, Image=foreign) == "AccessDeniedException"
    assert code_of(rekognition.detect_faces, Image={"Bytes": b"no picture"}) == "InvalidImageFormatException"


def test_credentials_are_checked(system: LocalSystem) -> None:
    """A wrong secret, a key that is none, a scope that is missing, and the collection of another key."""
    owner, reader = client(system), client(system, "recognise")
    owner.create_collection(CollectionId="private")
    access_key = owner._request_signer._credentials.access_key
    wrong, unknown = make_client(system.url, access_key, "x" * 43), make_client(system.url, "0" * 12, "x" * 43)
    assert code_of(wrong.list_collections) == "InvalidSignatureException"
    assert code_of(unknown.list_collections) == "UnrecognizedClientException"
    assert code_of(reader.create_collection, CollectionId="mine") == "AccessDeniedException"
    assert code_of(reader.describe_collection, CollectionId="private") == "AccessDeniedException"
    owner.delete_collection(CollectionId="private")
    system.run("keys", "revoke", access_key)
