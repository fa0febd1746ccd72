"""What requests ask of a worker process beside recognition, on an emulated AWS and with the fake engine."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from facerec.app_tier.use_case import AppTier
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.comparison import ModelThresholds
from facerec.engine.supervisor import SupervisedEngine
from facerec.gallery.cache import GalleryCache
from facerec.gallery.removal import thumbnail_key
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult, Refusal
from facerec.operations import Compare, Detect, Enrol, Operation, Recognise, Reject, SearchTemplate, Verify
from facerec.provision.provisioning import provision
from facerec.settings import Settings
from model.artefact import Artefact
from model.header import read_header
from model.thumbnails import SIDE
from tests.fakes.drawn_faces import photo
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultPublisher
from tests.fakes.templates import InMemoryTemplateStore
from tests.support.pictures import PORTRAIT
from tests.support.processes import CHECKOUT
from tests.support.workers import Worker, WorkerTier

EXAMPLES = CHECKOUT / "examples"
ADA, GRACE = "Ada Lovelace", "Grace Hopper"


def ask(tier: WorkerTier, operation: Operation, picture: bytes = b"") -> RecognitionResult:
    """Ask the worker, and wait for the result."""
    (answer,) = tier.answers(tier.upload(picture, operation=operation))
    return answer


def test_worker_does_every_operation(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """One after the other: each sees what the earlier ones have written."""
    worker = start()
    assert ask(tier, Recognise(nearest=1), photo(ADA)).outcome is Outcome.UNKNOWN
    enrolled = ask(tier, Enrol(identity=ADA), photo(ADA))
    (enrolment,) = enrolled.enrolments
    assert (enrolled.outcome, enrolment.status, enrolled.operation) == (Outcome.DONE, "enrolled", "enrol")
    assert enrolment.template_id is not None
    key, small = tier.store.keys(tier.settings.gallery_bucket, "default/")
    assert tier.store.get(tier.settings.gallery_bucket, key) == photo(ADA)
    assert small == thumbnail_key("default", enrolment.template_id)
    assert read_header(tier.store.get(tier.settings.gallery_bucket, small)).format == "JPEG"

    recognised = ask(tier, Recognise(nearest=1), photo(GRACE, ADA, take=1))
    assert (recognised.result, recognised.faces[1].matches[0].identity) == ("Unknown", ADA)
    assert recognised.faces[1].nearest[0].template_id == enrolment.template_id
    assert [face.matches for face in ask(tier, Detect(), photo(ADA)).faces] == [()]

    for verify in (Verify(identity=ADA), Verify(template_id=enrolment.template_id)):
        verified = ask(tier, verify, photo(ADA, GRACE))
        assert [round(face.similarity or 0, 2) for face in verified.faces] == [1, 0]
    compared = ask(tier, Compare(target=tier.stored(photo(GRACE, ADA))), photo(ADA))
    assert [round(face.similarity or 0, 2) for face in compared.faces] == [0, 1]

    assert ask(tier, Enrol(identity=GRACE), photo(GRACE)).outcome is Outcome.DONE
    found = ask(tier, SearchTemplate(template_id=enrolment.template_id))
    assert [match.identity for match in found.matches] == [GRACE]

    assert ask(tier, Reject(identity=ADA), photo(ADA, take=2)).outcome is Outcome.DONE
    assert ask(tier, Recognise(), photo(ADA, take=2)).outcome is Outcome.UNKNOWN
    refused = ask(tier, Verify(identity="Mary Jackson"), photo(ADA))
    assert (refused.outcome, refused.refusal) == (Outcome.REFUSED, Refusal.NO_SUCH_PERSON)

    assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.lines if '"recognised"' in line]
    assert [line.get("operation", "recognise") for line in lines][:3] == ["recognise", "enrol", "recognise"]
    assert lines[-1]["refusal"] == "no_such_person"


def test_enrolment_survives_a_crash_before_its_result(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """The template is stored, then the worker ends without its bucket: the next one reports it as enrolled."""
    bucket = tier.settings.output_bucket
    tier.clients.s3.delete_bucket(Bucket=bucket)
    worker = start()
    request = tier.upload(photo(ADA), operation=Enrol(identity=ADA))
    assert worker.wait() != 0
    templates = DynamoTemplateStore(tier.clients, tier.settings.templates_table)
    assert templates.count("default") == 1
    provision(tier.clients, tier.settings)
    start()
    (answer,) = tier.answers(request)
    assert (answer.outcome, answer.enrolments[0].status, answer.attempt) == (Outcome.DONE, "enrolled", 2)
    assert templates.count("default") == 1


def test_operations_on_photos_of_people(artefact_dir: Path) -> None:
    """The use case with the default pack: two people are enrolled, and other photos of them are told apart."""
    artefact = Artefact.load(artefact_dir)
    store, templates = InMemoryObjectStore(), InMemoryTemplateStore()
    with closing(SupervisedEngine(Settings(), artefact_dir)) as engine:
        engine.start()
        app_tier = AppTier(
            store=store,
            engine=engine,
            gallery=GalleryCache(templates, engine.model_id, 5, dimension=artefact.dimension),
            publisher=InMemoryResultPublisher(InMemoryQueues(), "responses"),
            output_bucket="out",
            thresholds=ModelThresholds(artefact.tail, artefact.threshold, 0.01),
            templates=templates,
            gallery_bucket="gallery",
            min_face_pixels=16,
            min_quality=0.5,
        )

        def do(operation: Operation, picture: Path) -> RecognitionResult:
            store.put("in", picture.name, picture.read_bytes(), "image/jpeg")
            stored = ObjectRef(bucket="in", key=picture.name, size=picture.stat().st_size)
            return app_tier.run(
                RecognitionRequest(
                    request_id=uuid4(),
                    input=stored,
                    filename=picture.name,
                    operation=operation,
                    submitted_at=datetime.now(UTC),
                )
            )

        for person in EXAMPLES.glob("gallery/*/*.jpg"):
            enrolled = do(Enrol(identity=person.parent.name), person)
            assert enrolled.outcome is Outcome.DONE
            small = store.get("gallery", thumbnail_key("default", enrolled.enrolments[0].template_id or ""))
            header = read_header(small)
            assert (header.format, header.width, header.height) == ("JPEG", SIDE, SIDE)
            assert len(engine.analyse(small).faces) == 1
        (recognised,) = do(Recognise(nearest=2), PORTRAIT).faces
        assert [match.identity for match in recognised.nearest] == ["Barack Obama", "Joe Biden"]
        (verified,) = do(Verify(identity="Barack Obama"), PORTRAIT).faces
        assert verified.similarity == pytest.approx(recognised.nearest[0].similarity, abs=1e-3)
        target = ObjectRef(bucket="in", key="official_portrait_2012.jpg", size=1)
        result = do(Compare(target=target), PORTRAIT)
        assert result.threshold is not None
        assert result.faces[0].similarity == pytest.approx(verified.similarity, abs=1e-3)
        assert verified.similarity is not None
        assert verified.similarity > result.threshold > recognised.nearest[1].similarity
