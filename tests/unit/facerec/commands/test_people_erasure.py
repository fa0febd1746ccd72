"""Erasures, receipts, readers and the access log on the command line, on stores in memory."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from facerec import bootstrap
from facerec.access_records import AccessRecord
from facerec.cli import cli
from facerec.erasure_records import ReaderKind, ReaderReport
from facerec.errors import FacerecError
from tests.fakes.erasures import InMemoryAccessRecords
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier

DISK = "i-1:aa"


@pytest.fixture
def tier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeWebTier:
    """Ada is enrolled, a stopped machine has a snapshot of her, and there is a key for receipts."""
    tier = FakeWebTier()
    tier.templates.add(make_template(1, "Ada"))
    tier.erasures.readers.report(
        ReaderReport(
            reader_id=DISK,
            kind=ReaderKind.DISK,
            where="i-1 /cache",
            collections={"default": 1},
            reported_at=datetime(2026, 3, 1, tzinfo=UTC),
        )
    )
    accesses = InMemoryAccessRecords()
    accesses.add(
        [
            AccessRecord(
                at=datetime.now(UTC),
                client=client,
                collection="default",
                operation="recognise",
                request_id=uuid4(),
                outcome="match",
            )
            for client in ("0123456789ab", "ba9876543210")
        ]
    )
    monkeypatch.setenv("FACEREC_MODEL__DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("FACEREC_ERASURE__SIGNING_KEY", str(tmp_path / "key.pem"))
    for name, port in (
        ("template_store", tier.templates),
        ("person_records", tier.records),
        ("object_store", tier.store),
        ("erasures", tier.erasures.make()),
        ("gallery_readers", tier.erasures.readers),
        ("access_records", accesses),
    ):
        monkeypatch.setattr(bootstrap, name, lambda _settings, port=port: port)
    return tier


def run(*arguments: str | Path, status: int = 0, says: str = "") -> Result:
    """Run a command, which must end with this status and say this."""
    result = CliRunner().invoke(cli, ["people", *map(str, arguments)])
    said = str(result.exception) if isinstance(result.exception, FacerecError) else result.output
    assert result.exit_code == status, (result.output, result.exception)
    assert says in said
    return result


def removal(*, wait: str = "0s", status: int = 0) -> Any:
    """Remove Ada, and return what the command prints for programs."""
    printed = run("remove", "Ada", "--yes", "--wait", wait, "--json", status=status).stdout
    return json.loads(printed[printed.index("{\n") :])  # behind log lines, which `facerec.cli.main` alone configures


@pytest.mark.usefixtures("tier")
def test_removal_ends_with_what_is_owed_until_the_disk_is_written_off(tmp_path: Path) -> None:
    """Its own exit status says so; the receipt then names who has written it off."""
    run("receipt-key", tmp_path / "key.pem", says="BEGIN PUBLIC KEY")
    begun = removal(wait="1s", status=4)
    assert f"disk {DISK}" in {place["place"] for place in begun["still_owed"]}
    run("erasures", says=begun["erasure_id"])
    run("erasures", begun["erasure_id"], says="owed")
    run("readers", says=DISK)
    run("readers", "--write-off", "i-9:zz", status=1, says="there is no reader 'i-9:zz'")
    run("readers", "--write-off", DISK, says="is written off")
    run("erasures", "--finish", says="complete")
    run("erasures", says="No removal owes anything")
    file = tmp_path / "receipt.json"
    run("receipt", begun["erasure_id"], "--out", file, says="complete")
    subject = ("--name", "Ada", "--subject-key", begun["subject_key"])
    run("receipt", "--verify", file, *subject, says="The receipt is about 'Ada'")
    run("receipt", "--verify", file, "--name", "Bob", *subject[2:], status=1, says="not about this name")
    places = json.loads(run("receipt", "--verify", file, "--json").stdout)["places"]
    assert [each["state"] for each in places if each["place"] == f"disk {DISK}"] == ["written_off"]


@pytest.mark.usefixtures("tier")
def test_receipt_needs_a_known_erasure_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    begun = removal()
    run("receipt", "0" * 32, status=1, says="there is no erasure")
    run("receipt", begun["erasure_id"], status=1, says="receipt-key")
    monkeypatch.delenv("FACEREC_ERASURE__SIGNING_KEY")
    run("receipt", begun["erasure_id"], status=1, says="FACEREC_ERASURE__SIGNING_KEY is not set")
    run("receipt", status=2, says="Give the ID")


@pytest.mark.usefixtures("tier")
def test_access_log_is_filtered_by_key() -> None:
    """As a table and as JSON."""
    assert len(json.loads(run("access-log", "--json").stdout)) == 2
    (record,) = json.loads(run("access-log", "--key", "0123456789ab", "--json").stdout)
    assert (record["client"], record["operation"], record["outcome"]) == ("0123456789ab", "recognise", "match")
    run("access-log", says="ba9876543210")
    run("access-log", "--collection", "other", says="No access in this time")
