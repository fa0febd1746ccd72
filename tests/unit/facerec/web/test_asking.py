"""Every API asks the workers through `Asker`: here the app tier's real use case answers, on drawn faces."""

from uuid import uuid4

import pytest

from facerec.aws.sqs.results import fitting
from facerec.messages import UNKNOWN, Outcome, RecognitionRequest, RecognitionResult, ResultMatch
from facerec.operations import Detect, Enrol, Operation, Recognise
from facerec.stored_results import store_result
from facerec.web.asking import Answer, Asker, Question
from facerec.web.forms import Photo
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, picture, result_for, running, upload

ADA = "Ada Lovelace"
REQUEST = {
    "request_id": uuid4(),
    "input": {"bucket": "in", "key": "a.jpg", "size": 0},
    "filename": "a.jpg",
    "submitted_at": "2026-11-01T12:00:00Z",
}


def ask(
    tier: FakeWebTier,
    body: bytes,
    operation: Operation,
    target: bytes | None = None,
    names: tuple[str, str] = ("a.jpg", "b.jpg"),
) -> Answer:
    """Ask as an API does."""
    asker = Asker(
        settings=tier.settings,
        store=tier.store,
        queue=tier.tasks,
        reply_to=tier.settings.response_queue,
        waiters=tier.waiters,
        admission=tier.admission,
    )
    second = None if target is None else Photo(names[1], target)
    question = Question(photo=Photo(names[0], body), target=second, operation=operation)
    return asker.ask(uuid4(), "client", lambda: question)


def test_enrolled_person_is_recognised_by_an_upload() -> None:
    """Through the one queue, with the stores of the tier."""
    with running(FakeWebTier(working=True)) as tier:
        enrolled = ask(tier, photo(ADA), Enrol(identity=ADA)).result
        assert enrolled is not None
        assert [each.status for each in enrolled.enrolments] == ["enrolled"]
        sent = upload(tier.app.test_client(), photo(ADA, take=1), "ada.jpg")
        assert sent.text == f"ada.jpg: face detected - {ADA}"
        tier.templates.remove("default", list(tier.templates.owners("default")))
        again = ask(tier, photo(ADA), Recognise(nearest=1)).result
        assert again is not None
        assert again.outcome is Outcome.UNKNOWN, "what the web tier has removed is not found"


@pytest.mark.parametrize("names", [("a.jpg", "a.jpg"), ("target-a.jpg", "a.jpg"), ("target", "a.jpg")])
def test_second_photo_never_replaces_the_first(names: tuple[str, str]) -> None:
    """Whatever the client calls them: a photo that is compared with itself is always the same person."""
    with running(FakeWebTier(working=True)) as tier:
        result = ask(tier, photo(ADA), Recognise(), target=photo("Grace Hopper"), names=names).result
    assert result is not None
    assert result.faces[0].similarity is not None
    assert result.faces[0].similarity < 0.5


def test_target_makes_a_comparison() -> None:
    """Both photos are stored under the request's id."""
    with running(FakeWebTier(working=True)) as tier:
        result = ask(tier, photo(ADA), Recognise(), target=photo("Grace Hopper", ADA)).result
        assert result is not None
        assert (result.operation, result.outcome) == ("compare", Outcome.DONE)
        assert [round(face.similarity or 0) for face in result.faces] == [0, 1]
        assert len(tier.store.keys(tier.settings.input_bucket)) == 2


def test_photo_of_other_origin_has_no_face() -> None:
    """To the fake engine; the real one may find some."""
    with running(FakeWebTier(working=True)) as tier:
        result = ask(tier, picture(), Detect()).result
        assert result is not None
        assert (result.outcome, result.faces) == (Outcome.DONE, ())


def test_shortened_message_is_replaced_by_the_stored_result() -> None:
    """A list of many people does not fit into a message of the response queue."""
    tier = FakeWebTier()
    match = ResultMatch(identity=ADA, similarity=0.5, threshold=0.4, template_id="0" * 32)

    def work(request: RecognitionRequest) -> None:
        result = result_for(request, ADA)
        face = result.faces[0].model_copy(update={"nearest": (match,) * 4096})
        whole = result.model_copy(update={"faces": (face,)})
        store_result(tier.store, tier.settings.output_bucket, whole)
        message = fitting(whole, tier.settings.queue.max_message_bytes)
        tier.publisher.publish(tier.settings.response_queue, RecognitionResult.parse(message))

    tier.tasks.worker = work
    with running(tier):
        result = ask(tier, picture(), Recognise(nearest=4096)).result
        assert result is not None
        assert [len(face.nearest) for face in result.faces] == [4096]


def test_message_without_faces_is_shortened_by_its_other_lists() -> None:
    """The lists of a search by a template are its matches."""
    request = RecognitionRequest.model_validate(REQUEST)
    match = ResultMatch(identity=ADA, similarity=0.5, threshold=0.4)
    result = result_for(request, UNKNOWN).model_copy(update={"matches": (match,) * 9000, "faces": ()})
    message = RecognitionResult.parse(fitting(result, 200_000))
    assert (message.matches, message.shortened) == ((), True)
    assert fitting(result, 2_000_000) == result.to_json()
