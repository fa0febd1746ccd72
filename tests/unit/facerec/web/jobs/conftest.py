"""A web tier on fakes whose jobs are fed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest
from werkzeug.test import TestResponse

from facerec.job_records import Job, JobFile
from facerec.settings import Settings
from facerec.settings.tiers import CallbackSettings, JobSettings
from tests.fakes.web_tier import FakeWebTier, answers, picture, running

Fed = Callable[..., "FedTier"]


class FedTier:
    """A running tier, and how a client uses its jobs."""

    def __init__(self, tier: FakeWebTier, headers: dict[str, str]) -> None:
        self.tier = tier
        self.headers = headers
        self.client = tier.app.test_client()

    def create(self, *names: str, query: str = "", body: bytes | None = None, **headers: str) -> TestResponse:
        """Create a job from files of these names."""
        photo = picture() if body is None else body
        files = [(BytesIO(photo), name) for name in names]
        return self.client.post(
            f"/api/v1/jobs{query}", data={"file": files}, headers={**self.headers, **_named(headers)}
        )

    def create_from_zip(self, body: bytes, query: str = "", **headers: str) -> TestResponse:
        """Create a job from a zip."""
        sent = {**self.headers, **_named(headers), "Content-Type": "application/zip"}
        return self.client.post(f"/api/v1/jobs{query}", data=body, headers=sent)

    def ended(self, created: TestResponse) -> tuple[Job, list[JobFile]]:
        """The job and its files, once nothing is left to do."""
        assert created.status_code == 202, created.text
        job = self.tier.jobs.await_settled(job_id_of(created))
        return job, list(self.tier.jobs.files(job.job_id))

    def get(self, path: str) -> TestResponse:
        """Read."""
        return self.client.get(path, headers=self.headers)


def job_id_of(created: TestResponse) -> UUID:
    """The id in a reply."""
    return UUID(created.json["job_id"])  # type: ignore[index] # JSON


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def zipped(**members: bytes) -> bytes:
    """A zip of these files; given by their names."""
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return file.getvalue()


@pytest.fixture
def fed() -> Iterator[Fed]:
    """Starts a tier whose workers say `Ada`, unless told otherwise."""
    with ExitStack() as stack:

        def start(
            settings: Settings | None = None, *, headers: dict[str, str] | None = None, **options: Any
        ) -> FedTier:
            secret = CallbackSettings.model_validate({"secret": "a secret of sixteen or more"})
            tier = FakeWebTier(
                settings or Settings(callbacks=secret, jobs=JobSettings(window=4, max_files=20)),
                **{"answer": answers("Ada"), **options},
            )
            stack.enter_context(running(tier))
            stack.callback(tier.feeder.stop)
            tier.feeder.start()
            return FedTier(tier, headers or {})

        yield start
