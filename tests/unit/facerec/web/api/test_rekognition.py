"""The Rekognition API with boto3's own client, on a web tier and an app tier in memory."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from facerec.gallery.enrolment import EnrolmentStatus
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.api.rekognition import faces, shapes
from tests.fakes.drawn_faces import DrawnFace, photo
from tests.fakes.web_tier import FakeWebTier, running, upload
from tests.support.rekognition import connect, differences, make_client

URL = "http://facerec.test"
ADA, GRACE = DrawnFace("Ada", side=120), DrawnFace("Grace", side=80)


class Service:
    """A running tier in open mode, and boto3's client of it, whose answers are compared with the service's model."""

    def __init__(self, tier: FakeWebTier) -> None:
        self.tier = tier
        self.client = make_client(URL)
        connect(self.client, tier.app)
        self.raw: dict[str, Any] = {}
        """The last answer as it was sent."""
        self.client.meta.events.register("after-call.rekognition", self._check)

    def _check(self, http_response: Any, model: Any, **_: object) -> None:
        self.raw = json.loads(http_response.content)
        if http_response.status_code == 200:
            assert differences(model.name, self.raw) == []

    def index(self, *people: DrawnFace, name: str | None = None, take: int = 0, **options: Any) -> dict[str, Any]:
        """Index a photo in the collection `staff`."""
        if name is not None:
            options["ExternalImageId"] = name
        answer: dict[str, Any] = self.client.index_faces(
            CollectionId="staff", Image={"Bytes": photo(*people, take=take)}, **options
        )
        return answer

    def search(self, *people: DrawnFace, **options: Any) -> dict[str, Any]:
        """Search a photo in the collection `staff`."""
        answer: dict[str, Any] = self.client.search_faces_by_image(
            CollectionId="staff", Image={"Bytes": photo(*people)}, **options
        )
        return answer


def error_of(call: Callable[..., object], **arguments: object) -> tuple[str, int]:
    """The name and the status of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["Error"]["Message"]
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture
def service() -> Iterator[Service]:
    """The service with the empty collection `staff`."""
    tier = FakeWebTier(
        Settings(web=WebSettings(allowed_hosts=("facerec.test", "localhost"), image_buckets=("photos",))), working=True
    )
    with running(tier):
        made = Service(tier)
        made.client.create_collection(CollectionId="staff")
        yield made


def other(face: DrawnFace) -> DrawnFace:
    """Another shot of the same person."""
    return DrawnFace(face.name, side=face.side, take=1)


def test_upload_of_a_form_is_not_affected(service: Service) -> None:
    """It goes to the same path."""
    service.index(ADA, name="ada")
    assert upload(service.tier.app.test_client(), photo(ADA)).text == "image_01.jpg: face not recognized"
    headers = {"X-Amz-Target": "DynamoDB_20120810.GetItem"}
    assert service.tier.app.test_client().post("/", headers=headers).status_code == 400


def test_collection_is_created_described_and_deleted(service: Service) -> None:
    """A second one of the same name is refused, and so is a name that is none."""
    client = service.client
    made = client.create_collection(CollectionId="guests")
    assert (made["StatusCode"], made["CollectionArn"]) == (
        200,
        "aws:rekognition:us-east-1:000000000000:collection/guests",
    )
    assert error_of(client.create_collection, CollectionId="guests") == ("ResourceAlreadyExistsException", 400)
    for name in ("..", "a" * 65, "größe"):
        assert error_of(client.create_collection, CollectionId=name) == ("InvalidParameterException", 400)
    service.index(ADA, GRACE)
    described = client.describe_collection(CollectionId="staff")
    assert described["FaceCount"] == 2
    assert described["FaceModelVersion"] == service.tier.engine.model_id
    assert described["CollectionARN"] == "arn:aws:rekognition:us-east-1:000000000000:collection/staff"
    assert described["CreationTimestamp"].tzinfo is not None
    service.tier.records.add_name("staff", "Without a photo")
    assert client.delete_collection(CollectionId="staff")["StatusCode"] == 200
    assert service.tier.templates.count("staff") == 0
    assert service.tier.records.names("staff") == []
    assert service.tier.store.keys(service.tier.settings.gallery_bucket, "staff/") == []
    for call in (client.describe_collection, client.delete_collection, client.list_faces):
        assert error_of(call, CollectionId="staff") == ("ResourceNotFoundException", 400)


def test_collections_are_listed_page_by_page(service: Service) -> None:
    """By boto3's own paginator; a token that is none of ours is refused."""
    for number in range(4):
        service.client.create_collection(CollectionId=f"c{number}")
    pages = list(service.client.get_paginator("list_collections").paginate(PaginationConfig={"PageSize": 2}))
    assert [page["CollectionIds"] for page in pages] == [["c0", "c1"], ["c2", "c3"], ["default", "staff"]]
    assert [len(page["FaceModelVersions"]) for page in pages] == [2, 2, 2]
    assert error_of(service.client.list_collections, NextToken="€")[0] == "InvalidPaginationTokenException"


def test_every_face_of_an_image_is_indexed(service: Service) -> None:
    """Each has an id, its place as a share of the picture, and what the client called the image."""
    answer = service.index(ADA, GRACE, name="trip:1.jpg")
    records = answer["FaceRecords"]
    assert answer["UnindexedFaces"] == []
    assert answer["FaceModelVersion"] == service.tier.engine.model_id
    assert [record["Face"]["ExternalImageId"] for record in records] == ["trip:1.jpg"] * 2
    assert len({record["Face"]["ImageId"] for record in records}) == 1
    assert len({record["Face"]["FaceId"] for record in records}) == 2
    box = {"Width": 120 / 640, "Height": 120 / 480, "Left": 10 / 640, "Top": 10 / 480}
    assert records[0]["Face"]["BoundingBox"] == records[0]["FaceDetail"]["BoundingBox"] == pytest.approx(box)
    assert records[0]["Face"]["Confidence"] == pytest.approx(99)
    kinds = [landmark["Type"] for landmark in records[0]["FaceDetail"]["Landmarks"]]
    assert kinds == ["eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight"]
    assert [record["Face"] for record in service.index(ADA, GRACE, name="trip:1.jpg")["FaceRecords"]] == [
        record["Face"] for record in records
    ]


def test_face_that_is_not_indexed_has_its_reason(service: Service) -> None:
    """Small, blurred, or beyond the number that was asked for; without a filter, blurred faces are indexed."""
    tiny, blurred = DrawnFace("Tiny", side=10), DrawnFace("Blurred", side=90, quality=0.1)
    answer = service.index(ADA, blurred, GRACE, tiny, MaxFaces=2)
    reasons = {each["FaceDetail"]["BoundingBox"]["Left"]: each["Reasons"] for each in answer["UnindexedFaces"]}
    assert len(answer["FaceRecords"]) == 1
    assert list(reasons.values()) == [["LOW_SHARPNESS"], ["EXCEEDS_MAX_FACES"], ["EXCEEDS_MAX_FACES"]]
    assert [each["Reasons"] for each in service.index(tiny)["UnindexedFaces"]] == [["SMALL_BOUNDING_BOX"]]
    assert len(service.index(blurred, QualityFilter="NONE")["FaceRecords"]) == 1
    nobody = service.index()
    assert (nobody["FaceRecords"], nobody["UnindexedFaces"]) == ([], [])


def test_image_of_another_name_is_refused(service: Service) -> None:
    """It says which face has it."""
    (record,) = service.index(ADA, name="ada")["FaceRecords"]
    with pytest.raises(ClientError, match=record["Face"]["FaceId"]):
        service.index(ADA, name="grace")
    assert error_of(service.index, name="unknown")[0] == "InvalidParameterException"


def test_faces_are_listed_page_by_page_and_deleted(service: Service) -> None:
    """By boto3's own paginator; each face once."""
    people = [DrawnFace(f"person {number}", side=60) for number in range(5)]
    indexed = [record["Face"] for record in service.index(*people, name="all")["FaceRecords"]]
    pages = list(
        service.client.get_paginator("list_faces").paginate(CollectionId="staff", PaginationConfig={"PageSize": 2})
    )
    assert [len(page["Faces"]) for page in pages] == [2, 2, 1]
    listed = {face["FaceId"]: face for page in pages for face in page["Faces"]}
    assert listed.keys() == {face["FaceId"] for face in indexed}
    for face in indexed:
        assert {**face, **listed[face["FaceId"]]} == face
    ids = [indexed[0]["FaceId"], indexed[1]["FaceId"].replace("-", ""), "00000000-0000-0000-0000-000000000000"]
    found = service.client.list_faces(CollectionId="staff", FaceIds=ids)["Faces"]
    assert {face["FaceId"] for face in found} == {face["FaceId"] for face in indexed[:2]}
    removed = service.client.delete_faces(CollectionId="staff", FaceIds=ids)
    assert removed["DeletedFaces"] == [face["FaceId"] for face in indexed[:2]]
    assert removed["UnsuccessfulFaceDeletions"] == [{"FaceId": ids[2], "Reasons": ["FACE_NOT_FOUND"]}]
    assert service.client.describe_collection(CollectionId="staff")["FaceCount"] == 3
    assert service.client.list_faces(CollectionId="staff", UserId="u1")["Faces"] == []
    assert error_of(service.client.list_faces, CollectionId="staff", NextToken="€")[0].startswith("InvalidPagination")


def test_search_takes_the_largest_face_and_says_so(service: Service) -> None:
    """Beyond the service's answer, a field and a header name the faces that were left out."""
    (ada,) = service.index(ADA, name="ada")["FaceRecords"]
    service.index(GRACE, name="grace")
    answer = service.search(other(GRACE), other(ADA))
    (match,) = answer["FaceMatches"]
    assert match["Similarity"] > 99
    assert match["Face"] == {name: ada["Face"][name] for name in match["Face"]}
    assert answer["SearchedFaceBoundingBox"]["Width"] == pytest.approx(120 / 640)
    assert answer["SearchedFaceConfidence"] == pytest.approx(99)
    (left_out,) = service.raw["UnsearchedFaces"]
    assert left_out["BoundingBox"]["Width"] == pytest.approx(80 / 640)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-facerec-unsearched-faces"] == "1"


def test_search_takes_all_faces_on_request(service: Service) -> None:
    """With a header, which boto3's users add by a hook."""
    service.index(ADA, name="ada")
    service.index(GRACE, name="grace")
    service.client.meta.events.register(
        "before-sign.rekognition.SearchFacesByImage",
        lambda request, **_: request.headers.add_header("x-facerec-search-all", "true"),
    )
    answer = service.search(other(GRACE), DrawnFace("Stranger", side=200), other(ADA))
    assert sorted(match["Face"]["ExternalImageId"] for match in answer["FaceMatches"]) == ["ada", "grace"]
    assert service.raw["UnsearchedFaces"] == []
    found = [
        [match["Face"]["ExternalImageId"] for match in face["FaceMatches"]] for face in service.raw["SearchedFaces"]
    ]
    assert found == [[], ["grace"], ["ada"]]


def test_search_honours_its_limits(service: Service) -> None:
    """The least similarity, of which 80 is our threshold, and the number of faces."""
    for number in range(3):
        service.index(DrawnFace("Ada", take=number + 2), name=f"ada{number}")
    service.index(GRACE)
    assert len(service.search(ADA)["FaceMatches"]) == 3
    assert len(service.search(ADA, MaxFaces=2)["FaceMatches"]) == 2
    every = service.search(ADA, FaceMatchThreshold=0)["FaceMatches"]
    similarities = [match["Similarity"] for match in every]
    assert len(every) == 4
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[-1] < 80
    assert service.search(DrawnFace("Stranger"))["FaceMatches"] == []
    assert error_of(service.search, FaceMatchThreshold=0) == ("InvalidParameterException", 400)


def test_enrolled_face_is_searched_among_the_others(service: Service) -> None:
    """Not itself; a face that is none is refused."""
    (first,) = service.index(ADA, name="ada")["FaceRecords"]
    (second,) = service.index(other(ADA), name="ada.2")["FaceRecords"]
    service.index(GRACE)
    answer = service.client.search_faces(CollectionId="staff", FaceId=first["Face"]["FaceId"])
    assert answer["SearchedFaceId"] == first["Face"]["FaceId"]
    assert [match["Face"]["FaceId"] for match in answer["FaceMatches"]] == [second["Face"]["FaceId"]]
    for wrong in ("00000000-0000-0000-0000-000000000000", "nonsense"):
        assert error_of(service.client.search_faces, CollectionId="staff", FaceId=wrong) == (
            "InvalidParameterException",
            400,
        )


def test_faces_are_detected(service: Service) -> None:
    """What is not known of a face is left out."""
    details = service.client.detect_faces(Image={"Bytes": photo(ADA, GRACE)}, Attributes=["ALL"])["FaceDetails"]
    assert [detail["BoundingBox"]["Width"] for detail in details] == pytest.approx([120 / 640, 80 / 640])
    assert {*details[0]} == {"BoundingBox", "Confidence", "Landmarks"}
    assert service.client.detect_faces(Image={"Bytes": photo()})["FaceDetails"] == []


def test_faces_of_two_images_are_compared(service: Service) -> None:
    """The largest of the first with every one of the second."""
    compare = service.client.compare_faces
    source = {"Bytes": photo(GRACE, ADA)}
    answer = compare(SourceImage=source, TargetImage={"Bytes": photo(GRACE, other(ADA))})
    assert answer["SourceImageFace"]["BoundingBox"]["Width"] == pytest.approx(120 / 640)
    (match,), (unmatched,) = answer["FaceMatches"], answer["UnmatchedFaces"]
    assert match["Similarity"] > 99
    assert match["Face"]["BoundingBox"]["Width"] == pytest.approx(120 / 640)
    assert unmatched["BoundingBox"]["Width"] == pytest.approx(80 / 640)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-facerec-unsearched-faces"] == "1"
    every = compare(SourceImage=source, TargetImage={"Bytes": photo(GRACE, other(ADA))}, SimilarityThreshold=0)
    assert len(every["FaceMatches"]) == 2
    for images in ((photo(), photo(ADA)), (photo(ADA), photo())):
        arguments = dict(zip(("SourceImage", "TargetImage"), ({"Bytes": image} for image in images), strict=True))
        assert error_of(compare, **arguments)[0] == "InvalidParameterException"


def test_image_is_read_from_a_bucket_that_is_allowed(service: Service) -> None:
    """No other, and no version of it."""
    service.tier.store.put("photos", "trips/ada.jpg", photo(ADA), "image/jpeg")
    service.tier.store.put("secrets", "ada.jpg", photo(ADA), "image/jpeg")
    detect = service.client.detect_faces

    def image(bucket: str, name: str, **more: str) -> dict[str, Any]:
        return {"S3Object": {"Bucket": bucket, "Name": name, **more}}

    assert len(detect(Image=image("photos", "trips/ada.jpg"))["FaceDetails"]) == 1
    for refused, code in (
        (image("photos", "none.jpg"), "InvalidS3ObjectException"),
        (image("photos", "trips/ada.jpg", Version="1"), "InvalidS3ObjectException"),
        (image("secrets", "ada.jpg"), "AccessDeniedException"),
        ({}, "InvalidParameterException"),
        ({"Bytes": b"x", **image("photos", "trips/ada.jpg")}, "InvalidParameterException"),
    ):
        assert error_of(detect, Image=refused) == (code, 400)


def test_image_that_cannot_be_used_has_the_services_error(service: Service) -> None:
    """No picture, or more than five megabytes."""
    detect = service.client.detect_faces
    assert error_of(detect, Image={"Bytes": b"no picture"}) == ("InvalidImageFormatException", 400)
    large = photo(ADA) + bytes(5 * 1024 * 1024)
    assert error_of(detect, Image={"Bytes": large}) == ("ImageTooLargeException", 400)
    assert error_of(detect, Image={"Bytes": large * 3}) == ("ImageTooLargeException", 400)


def test_body_that_is_no_call_is_refused(service: Service) -> None:
    """With the service's names; nothing of it is a stack trace."""
    client = service.tier.app.test_client()
    for target, body, code in (
        ("ListFaces", b"{", "SerializationException"),
        ("ListFaces", b"[]", "InvalidParameterException"),
        ("ListFaces", b"{}", "InvalidParameterException"),
        ("ListFaces", b'{"CollectionId": "staff", "MaxResults": 4097}', "InvalidParameterException"),
        ("DetectFaces", b'{"Image": {"Bytes": "%%%"}}', "InvalidParameterException"),
        ("StartFaceDetection", b"{}", "UnknownOperationException"),
    ):
        reply = client.post("/", base_url=URL, data=body, headers={"X-Amz-Target": f"RekognitionService.{target}"})
        assert (reply.status_code, reply.get_json(force=True)["__type"]) == (400, code)
        assert reply.content_type == "application/x-amz-json-1.1"


def test_names_of_statuses_are_those_of_the_enrolment() -> None:
    """The web tier cannot import them."""
    assert {faces.OTHER_NAME, faces.TOO_SMALL, faces.POOR_QUALITY} < {*EnrolmentStatus}
    assert {status for status in EnrolmentStatus if not status.failed} == faces.ENROLLED


def test_similarity_rises_and_our_threshold_is_80() -> None:
    """It ends at 0 and 100."""
    for threshold in (0.2, 0.43, 1.0):
        rising = [shapes.percent(step / 1000, threshold) for step in range(1001)]
        assert rising == sorted(rising)
        assert (rising[0], rising[-1]) == (0, 100)
        assert all((value >= 80) == (step / 1000 >= threshold) for step, value in enumerate(rising))
