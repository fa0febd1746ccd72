"""A served web tier for browsers, and people, photos and jobs to fill it with."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

from playwright.sync_api import Page

from facerec.api_keys import Scope, issue, revoked
from facerec.client import Client
from facerec.gallery.receipt_signing import SigningKey
from facerec.job_records import Job, JobStatus
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.object_keys import input_key
from facerec.operations import CheckEnrolment
from facerec.ports import ApiKeys
from facerec.settings import Settings
from facerec.settings.resources import ErasureSettings
from facerec.settings.tiers import UnknownSettings
from facerec.web.pages.texts import text
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.portraits import portrait
from tests.fakes.web_tier import FakeWebTier
from tests.support.served_web_tier import ServedWebTier, serve_web_tier

PEOPLE = (
    "Ada Lovelace", "Alan Turing", "Annie Easley", "Barbara Liskov", "Dorothy Vaughan", "Edsger Dijkstra",
    "Evelyn Boyd Granville", "Frances Allen", "Grace Hopper", "Hedy Lamarr", "John Backus", "Karen Spärck Jones",
    "Katherine Johnson", "Kathleen Booth", "Konrad Zuse", "Margaret Hamilton", "Mary Jackson", "Niklaus Wirth",
    "Radia Perlman", "Steve Shirley", "Tony Hoare",
)  # fmt: skip
"""Whom `fill` enrols, with one to four photos each."""


@contextmanager
def serve_site(keys: ApiKeys | None = None) -> Iterator[ServedWebTier]:
    """A whole web tier with drawn faces, which feeds jobs, keeps unknown people and signs receipts."""
    with tempfile.TemporaryDirectory() as folder:
        erasure = ErasureSettings(signing_key=Path(folder) / "receipts.pem")
        SigningKey.create(Path(folder) / "receipts.pem")
        settings = Settings(unknown=UnknownSettings(collections=("*",)), erasure=erasure)
        with serve_web_tier(keys=keys, settings=settings, working=True) as web:
            web.tier.feeder.start()
            try:
                yield web
            finally:
                web.tier.feeder.stop()


@dataclass(frozen=True)
class SiteKeys:
    """The API keys of a site: one of each scope."""

    store: InMemoryApiKeys
    texts: dict[Scope, str]
    """What their owners present."""
    ids: dict[Scope, str]

    def revoke(self, scope: Scope) -> None:
        """Revoke the key of this scope."""
        key = self.store.get(self.ids[scope])
        assert key is not None
        self.store.put(revoked(key, datetime.now(UTC)))


def make_keys() -> SiteKeys:
    """Make a key of each scope."""
    issued = {scope: issue(f"client with {scope}", [scope], now=datetime.now(UTC)) for scope in Scope}
    return SiteKeys(
        InMemoryApiKeys(*(key for key, _ in issued.values())),
        {scope: token.reveal() for scope, (_, token) in issued.items()},
        {scope: key.key_id for scope, (key, _) in issued.items()},
    )


def fill(web: ServedWebTier, folder: Path, key: str | None = None) -> None:
    """Add people, two of whom look alike, unknown people, a job that has ended, and the record of one that runs.

    `folder` is for the files of the job. `key` is an API key with every scope. The feeder is stopped: it would notice
    that the running job has no files.
    """
    with Client(web.url, key) as client:
        for number, name in enumerate(PEOPLE):
            for take in range(1 + number * 7 % 4):
                client.photos.add(name, portrait(name, take=take), filename=f"{name.split()[0].lower()}-{take}.jpg")
        client.photos.add("Grace B. Hopper", portrait("Grace Hopper", take=7), filename="hopper.jpg")
        for name in ("a visitor", "a courier", "a guest"):
            for take in range(3):
                client.recognise(portrait(name, take=take), filename=f"entrance-{take}.jpg")
        with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
            for number, name in enumerate((*PEOPLE[:8], "a stranger", "another stranger")):
                archive.writestr(f"day-1/{number:02}.jpg", portrait(name, take=5))
            archive.writestr("day-1/landscape.jpg", portrait())
            archive.writestr("day-1/notes.txt", "no picture")
        job_id = client.jobs.create_from_zip(folder / "photos.zip").job_id
        ended = web.tier.jobs.await_settled(job_id)
    web.tier.feeder.stop()
    web.tier.jobs.create(_running(ended))


def sign_in(page: Page, url: str, key: str, *, following: str = "/") -> None:
    """Have the browser of a page sign in to a site with a key, and open what follows."""
    page.goto(f"{url}/sign-in?{urlencode({'next': following})}")
    page.get_by_label(text("sign_in.key"), exact=True).fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: urlsplit(address).path != "/sign-in")


def sample_arguments(
    web: ServedWebTier, person: str = "Ada Lovelace", *, filename: str = "probe.jpg"
) -> dict[str, str]:
    """A value for each argument in the address of a page of a filled site without keys.

    A result, a check of a photo, a merge and an erasure are new.
    """
    with Client(web.url) as client:
        merged, erased = f"Also {person}", f"Formerly {person}"
        for name in (merged, erased):
            client.photos.add(name, portrait(name))
        return {
            "name": person,
            "template_id": next(client.photos.list(person)).id.hex,
            "request_id": str(client.recognise(portrait(person, take=9), filename=filename).request_id),
            "check_id": str(checked(web.tier, portrait(person, take=8))),
            "unknown_id": next(client.unknown.list()).unknown_id,
            "job_id": str(client.jobs.list()[0].job_id),
            "merge_id": client.people.merge(merged, person).merge_id.hex,
            "erasure_id": str(client.people.remove(erased).erasure_id),
        }


def checked(tier: FakeWebTier, picture: bytes) -> UUID:
    """Have a photo checked before its enrolment; returns the id of the request."""
    request_id, filename = uuid4(), "checked.jpg"
    key = input_key(request_id, filename)
    tier.store.put(tier.settings.input_bucket, key, picture, "image/jpeg")
    tier.tasks.submit(
        RecognitionRequest(
            request_id=request_id,
            filename=filename,
            input=ObjectRef(bucket=tier.settings.input_bucket, key=key, size=len(picture)),
            operation=CheckEnrolment(),
            submitted_at=datetime.now(UTC),
        )
    )
    return request_id


def _running(job: Job) -> Job:
    """A job like this one, in the middle of its work."""
    return job.model_copy(
        update={
            "job_id": uuid4(),
            "status": JobStatus.RUNNING,
            "created_at": job.created_at - timedelta(minutes=4),
            "started_at": job.created_at - timedelta(minutes=3),
            "ended_at": None,
            "total": 1_200,
            "sent": 840,
            "counts": {"done": 765, "failed": 3, "skipped": 12},
            "outcomes": {"match": 610, "unknown": 121, "no_face": 34},
        }
    )
