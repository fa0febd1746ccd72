"""Unknown people with real worker processes, on an emulated AWS and with the fake engine."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import CliRunner

from facerec.aws.dynamodb.person_records import DynamoPersonRecords
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.aws.dynamodb.unknown_people import DynamoUnknownPeople
from facerec.cli import cli
from facerec.gallery.unknown_people import Unknown
from facerec.messages import RecognitionResult, UnknownSight
from facerec.operations import Recognise, SearchUnknown
from facerec.processes.addresses import poll_until
from tests.fakes.drawn_faces import photo
from tests.support.workers import Worker, WorkerTier

KEPT = {"FACEREC_UNKNOWN__COLLECTIONS": '["default"]', "FACEREC_UNKNOWN__DAYS": "1"}
PROMOTION_SECONDS = 5


def recognised(tier: WorkerTier, picture: bytes) -> RecognitionResult:
    """Upload a photo and wait for the result."""
    (result,) = tier.answers(tier.upload(picture, operation=Recognise()))
    return result


def sight(tier: WorkerTier, picture: bytes) -> UnknownSight:
    """Recognise an unknown person."""
    found = recognised(tier, picture).faces[0].unknown
    assert found is not None
    return found


def test_unknown_person_is_known_after_a_restart_promoted_and_forgotten(
    tier: WorkerTier, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is the same in another worker process; a promotion shows within seconds, and so does the expiry."""
    worker = start(**KEPT)
    ada, grace = sight(tier, photo("Ada")).unknown_id, sight(tier, photo("Grace")).unknown_id
    assert worker.stop() == 0
    start(**KEPT)
    assert sight(tier, photo("Ada", take=1)).unknown_id == ada != grace
    (found,) = tier.answers(tier.upload(photo("Grace", "Mary"), operation=SearchUnknown()))
    assert [face.unknown and face.unknown.unknown_id for face in found.faces] == [grace, None]

    monkeypatch.setenv("FACEREC_PREFIX", tier.settings.prefix)
    promoted = CliRunner().invoke(cli, ["people", "unknown", "promote", ada, "Ada Lovelace"])
    assert promoted.exit_code == 0, promoted.output
    assert poll_until(lambda: recognised(tier, photo("Ada")).result == "Ada Lovelace", PROMOTION_SECONDS)
    listed = CliRunner().invoke(cli, ["people", "unknown", "list"])
    assert grace in listed.output
    assert ada not in listed.output

    templates = DynamoTemplateStore(tier.clients, tier.settings.templates_table)
    records = DynamoUnknownPeople(tier.clients, tier.settings.people_table)
    record = records.get("default", grace)
    assert record is not None
    people = Unknown(
        enrolled=templates,
        records=records,
        names=DynamoPersonRecords(tier.clients, tier.settings.people_table),
        now=lambda: record.last_seen + timedelta(days=2),
    )
    assert people.sweep("default") == 1
    assert templates.collections_with_unknown() == []
    assert poll_until(lambda: sight(tier, photo("Grace")).unknown_id != grace, 20)
