"""Every API asks the workers through `Asker`: here the app tier's real use case answers, on drawn faces."""

from uuid import uuid4

from facerec.messages import Outcome
from facerec.operations import Detect, Enrol, Operation, Recognise
from facerec.web.asking import Answer, Asker, Question
from facerec.web.forms import Photo
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, picture, running, upload

ADA = "Ada Lovelace"


def ask(tier: FakeWebTier, body: bytes, operation: Operation, target: bytes | None = None) -> Answer:
    """Ask as an API does."""
    asker = Asker(
        settings=tier.settings,
        store=tier.store,
        queue=tier.tasks,
        reply_to=tier.settings.response_queue,
        waiters=tier.waiters,
        admission=tier.admission,
    )
    second = None if target is None else Photo("b.jpg", target)
    question = Question(photo=Photo("a.jpg", body), target=second, operation=operation)
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
