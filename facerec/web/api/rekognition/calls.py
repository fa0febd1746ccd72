"""What the operations of the Rekognition API share: reading a call, asking the workers, the rights on collections."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from facerec.api_keys import ApiKey, Scope
from facerec.errors import ConfigurationError, ObjectMissing, Refused
from facerec.message_base import DEFAULT_COLLECTION
from facerec.messages import RecognitionResult, ResultMatch
from facerec.object_keys import base_name
from facerec.ports import CollectionRecord
from facerec.web import uploads
from facerec.web.api.rekognition import shapes
from facerec.web.api.rekognition.errors import INTERNAL, INVALID_PARAMETER, RekognitionError, check_outcome, of_reply
from facerec.web.api.rekognition.requests import IMAGE_BYTES, Body, Image, S3Object, parse
from facerec.web.api.services import ApiServices
from facerec.web.asking import Question
from facerec.web.auth.access import presented_key
from facerec.web.auth.collections import may_use
from facerec.web.forms import Photo, allow_body, decode_photo
from facerec.web.replies import too_large
from facerec.web.results import OUTAGES

log = structlog.get_logger(__name__)

Shape = TypeVar("Shape", bound=Body)
UNKNOWN_MODEL = "unknown"
"""The model of an empty collection before the first answer of a worker."""


class Calls:
    """Answers the calls of one web process; safe for many threads."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
        self._model_id = UNKNOWN_MODEL
        self._image_bytes = min(IMAGE_BYTES, services.settings.web.max_upload_bytes)

    def body(self, shape: type[Shape]) -> Shape:
        """Read the body of the request that is being answered."""
        allow_body(request, self._image_bytes, photos=2, base64=True)
        try:
            return parse(shape, request.get_data(cache=False))
        except RequestEntityTooLarge as exc:
            raise RekognitionError("ImageTooLargeException", too_large(self._image_bytes).text) from exc

    def ask(self, shape: type[Shape], question: Callable[[Shape], Question]) -> tuple[Shape, RecognitionResult]:
        """Read the call, ask the workers, and return both; raises `RekognitionError`.

        The body is read when there is room for it, so `question` may raise.
        """
        calls: list[Shape] = []

        def read() -> Question:
            calls.append(self.body(shape))
            return question(calls[0])

        _, answer = uploads.ask(self.services.asker, read)
        if answer.result is None:
            raise of_reply(answer.reply)
        check_outcome(answer.result)
        self._model_id = answer.result.model_id or self._model_id
        return calls[0], answer.result

    def photo(self, image: Image, name: str = "image") -> Photo:
        """Return an image of a call; raises `RekognitionError`, and `Declined` for one that is too large or none.

        `name` is the file name of one that has none.
        """
        if (image.bytes_ is None) == (image.s3_object is None):
            raise RekognitionError(INVALID_PARAMETER, "an image has either Bytes or an S3Object")
        if image.s3_object is not None:
            return self._photo_of(image.s3_object)
        return decode_photo(image.bytes_, name, self._image_bytes)

    def _photo_of(self, source: S3Object) -> Photo:
        settings, store = self.services.settings.web, self.services.store
        where = f"{source.name!r} in bucket {source.bucket!r}"
        if source.bucket not in settings.image_buckets:
            advice = "the operator allows buckets with FACEREC_WEB__IMAGE_BUCKETS, or send the image as Bytes"
            raise RekognitionError(
                "AccessDeniedException", f"images of bucket {source.bucket!r} are not read: {advice}"
            )
        if source.version is not None:
            raise RekognitionError("InvalidS3ObjectException", "versions of objects are not read: leave Version out")
        try:
            size = store.describe(source.bucket, source.name).size
            if size > settings.max_upload_bytes:
                raise RekognitionError("ImageTooLargeException", too_large(settings.max_upload_bytes).text)
            body = store.get(source.bucket, source.name)
        except (ObjectMissing, ConfigurationError, Refused) as exc:
            log.info("image_unreadable", reason=str(exc))
            sentence = f"there is no object {where} that this server may read"
            raise RekognitionError("InvalidS3ObjectException", sentence) from exc
        return Photo(base_name(source.name), body)

    def model_of(self, collection: str) -> str:
        """Return the model of a collection's first face; of an empty one that of the last answer."""
        first = next(self.services.people.entries(collection, at_once=1), None)
        return self._model_id if first is None else first.model_id

    def usable(self, collection: str) -> CollectionRecord | None:
        """Return the record of a collection that the caller may use, or None for one that was never created.

        Raises `RekognitionError` if there is no such collection, or if it is not the caller's.
        """
        with reaching():
            record = self.services.collections.get(collection)
            if record is None and not self.exists(collection):
                message = f"The collection id: {collection} does not exist"
                raise RekognitionError("ResourceNotFoundException", message)
        if not may_use(presented_key(), collection, record):
            message = "this collection belongs to another API key: ask its operator"
            raise RekognitionError("AccessDeniedException", message)
        return record

    def exists(self, collection: str) -> bool:
        """Whether there is a collection without a record."""
        return collection == DEFAULT_COLLECTION or self.services.people.count(collection) > 0

    def face_matches(
        self, collection: str, rated: Sequence[tuple[float, ResultMatch]], most: int
    ) -> list[dict[str, Any]]:
        """Return the `FaceMatches` of a search, each face once, best first; removed faces are left out."""
        best: dict[str, float] = {}
        for similarity, match in sorted(rated, key=lambda each: -each[0]):
            if match.template_id is not None:
                best.setdefault(match.template_id, similarity)
        with reaching():
            entries = self.services.people.find(collection, list(best)[:most])
        return [
            {"Similarity": similarity, "Face": shapes.indexed_face(entries[template_id])}
            for template_id, similarity in best.items()
            if template_id in entries
        ]


@contextmanager
def reaching() -> Iterator[None]:
    """Turn the errors of a store that cannot be reached into the API's."""
    try:
        yield
    except OUTAGES as exc:
        log.warning("store_unreachable", reason=str(exc))
        sentence = "the store cannot be reached right now: try again in a few seconds"
        raise RekognitionError(INTERNAL, sentence) from exc


def may_delete(key: ApiKey | None, record: CollectionRecord | None) -> bool:
    """Whether the caller may delete a collection: its owner, or the operator.

    Not a key to which the operator has given it: another client could create it then, and would have it.
    """
    return key is None or key.allows(Scope.ADMIN) or (record is not None and record.owner == key.key_id)
