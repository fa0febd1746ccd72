"""A whole web tier on fakes, with a worker whose answers the test decides, or with the real use case."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from facerec.access_records import AccessRecord
from facerec.api_keys import Token
from facerec.app_tier.unknown_faces import UnknownFaces
from facerec.app_tier.use_case import AppTier
from facerec.comparison import ModelThresholds
from facerec.gallery.cache import GalleryCache
from facerec.messages import (
    NO_FACE,
    UNKNOWN,
    Face,
    Outcome,
    RecognitionRequest,
    RecognitionResult,
    ResultBox,
    ResultMatch,
)
from facerec.object_keys import output_key
from facerec.ports import ApiKeys
from facerec.session_records import csrf_token_of
from facerec.settings import Settings
from facerec.web.admission import Admission
from facerec.web.api.v1.description import DescribedApp
from facerec.web.app import create_app
from facerec.web.auth.access import AccessControl
from facerec.web.auth.credentials import Credentials
from facerec.web.auth.denials import Denial
from facerec.web.auth.sessions import CSRF_HEADER
from facerec.web.fleet.traffic import Traffic
from facerec.web.fleet.watch import FleetWatch
from facerec.web.inbox import InboxThread, Waiters
from facerec.web.jobs.feeder import JobFeeder
from facerec.web.metrics import WebMetrics
from facerec.web.readiness import Check, Readiness
from tests.fakes.callbacks import FakeCallbackSender
from tests.fakes.collections import InMemoryCollections
from tests.fakes.drawn_faces import DIMENSION, DrawnFacesEngine
from tests.fakes.erasures import FakeErasures
from tests.fakes.fleet import InMemoryBacklog, InMemoryHistory
from tests.fakes.jobs import InMemoryJobs
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox, InMemoryResultPublisher
from tests.fakes.sessions import InMemorySessions
from tests.fakes.task_queue import InMemoryTaskQueue
from tests.fakes.templates import InMemoryTemplateStore
from tests.fakes.unknown_people import InMemoryUnknownPeople
from tests.support.tails import TAILS

Answer = Callable[[RecognitionRequest], RecognitionResult]


class FakeWebTier:
    """The application with its ports in memory; `answer` decides what the worker says to a request.

    With `answer` None no worker answers, until `work` is called. With `working` the app tier's use case does, with the
    engine of `tests.fakes.drawn_faces` and this tier's stores. Without `keys` everyone is served.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        answer: Answer | None = None,
        *,
        keys: ApiKeys | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        working: bool = False,
    ) -> None:
        self.settings = settings or Settings()
        self.answer = answer
        self.engine = DrawnFacesEngine()
        self.store = InMemoryObjectStore()
        self.templates = InMemoryTemplateStore()
        self.records = InMemoryPersonRecords()
        self.accesses: list[AccessRecord] = []
        self.erasures = FakeErasures(
            settings=self.settings, objects=self.store, templates=self.templates, people=self.records
        )
        self.unknown = InMemoryUnknownPeople()
        self.collections = InMemoryCollections()
        self.queues = InMemoryQueues(self.settings.response_queue)
        self.publisher = InMemoryResultPublisher(self.queues, self.settings.response_queue)
        self.tasks = InMemoryTaskQueue(self._worker)
        self.gallery = GalleryCache(self.templates, self.engine.model_id, 5, dimension=DIMENSION)
        self.app_tier = self._app_tier() if working else None
        self.waiters = Waiters()
        self.metrics = WebMetrics()
        self.admission = Admission(
            max_waiting=self.settings.web.max_waiting,
            wait_seconds=self.settings.web.wait_seconds,
            watch=self.metrics.waiting,
        )
        self.inbox = InMemoryResultInbox(self.queues, self.settings.response_queue)
        self.inbox_thread = InboxThread(
            self.inbox, self.waiters, poll_seconds=0.02, backoff=lambda _: 0.01, watch=self.metrics
        )
        self.sessions = InMemorySessions()
        credentials = (
            None if keys is None else Credentials(self.settings.web, keys, self.sessions, clock=clock, now=now)
        )
        self.access = AccessControl(self.settings.web, credentials, clock=clock)
        self.checks: dict[str, Check] = {"inbox": self.inbox_thread.check}
        self.jobs = InMemoryJobs()
        self.callbacks = FakeCallbackSender()
        self.feeder = self.new_feeder()
        self.backlog = InMemoryBacklog()
        self.history = InMemoryHistory()
        self.traffic = Traffic(self.metrics.upload_totals)
        self.fleet = FleetWatch(read_depth=self.backlog.depth, history=self.history, traffic=self.traffic)
        self.app = self._app()

    def _app(self) -> DescribedApp:
        return create_app(
            settings=self.settings,
            store=self.store,
            people=self.templates,
            records=self.records,
            erasures=self.erasures.make(),
            on_access=self.accesses.append,
            collections=self.collections,
            queue=self.tasks,
            reply_to=self.settings.response_queue,
            waiters=self.waiters,
            admission=self.admission,
            readiness=Readiness(self.checks),
            measured=self.metrics,
            access=self.access,
            unknown=self.unknown,
            jobs=self.jobs,
            wake_jobs=self.feeder.wake,
            fleet=self.fleet,
        )

    def new_feeder(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> JobFeeder:
        """What feeds the jobs of one more web process, which shares the stores and the response queue."""
        return JobFeeder(
            settings=self.settings,
            store=self.store,
            queue=self.tasks,
            jobs=self.jobs,
            waiters=self.waiters,
            reply_to=self.settings.response_queue,
            callbacks=self.callbacks,
            now=now,
            clock=clock,
            poll_seconds=0.05,
        )

    def _app_tier(self) -> AppTier:
        settings = self.settings
        thresholds = ModelThresholds(TAILS["open"], 0.4, settings.gallery.false_names)
        return AppTier(
            store=self.store,
            engine=self.engine,
            gallery=self.gallery,
            publisher=self.publisher,
            output_bucket=settings.output_bucket,
            thresholds=thresholds,
            unknown=UnknownFaces(
                settings=settings.unknown,
                gallery=self.gallery,
                templates=self.templates,
                records=self.unknown,
                thresholds=thresholds,
                model_id=self.engine.model_id,
            ),
            copy_by_filename=settings.key_style == "filename",
            templates=self.templates,
            gallery_bucket=settings.gallery_bucket,
            min_face_pixels=settings.gallery.min_face_pixels,
            min_quality=settings.gallery.min_quality,
            min_probability=settings.gallery.min_probability,
        )

    def sign_in(self, client: FlaskClient, key: Token) -> dict[str, str]:
        """Have a client use the pages with this key; returns the headers with which their changes are sent."""
        credentials = self.access.credentials
        assert credentials is not None, "in open mode nobody signs in"
        begun = credentials.sign_in(key.reveal(), "192.0.2.1")
        assert not isinstance(begun, Denial), begun.sentence
        client.set_cookie("facerec_session", begun.token, httponly=True, samesite="Lax")
        return {CSRF_HEADER: csrf_token_of(begun.token)}

    def _worker(self, request: RecognitionRequest) -> None:
        if self.app_tier is not None:
            self.gallery.refresh()  # what the web tier has changed: a worker sees it within seconds
            self.app_tier.run(request)
        elif self.answer is not None:
            self.work(request, self.answer(request))

    def work(self, request: RecognitionRequest, result: RecognitionResult) -> None:
        """Store and publish a result, as a worker does."""
        key = output_key(request.request_id, request.filename)
        self.store.put(self.settings.output_bucket, key, result.to_json().encode(), "application/json")
        if request.reply_to is not None:
            self.publisher.publish(request.reply_to, result)


@contextmanager
def running(tier: FakeWebTier) -> Iterator[FakeWebTier]:
    """The tier with its inbox thread running."""
    tier.inbox_thread.start()
    try:
        yield tier
    finally:
        assert tier.inbox_thread.stop(5), "the inbox thread did not end"


@contextmanager
def together(count: int, step: Callable[[int], object]) -> Iterator[None]:
    """Run a step in as many threads as there are steps, all begun at once and all ended on leaving."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            step(number)
        except BaseException as exc:  # noqa: BLE001 - it is raised below, in the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def answers(name: str) -> Answer:
    """A worker that always says the same: a name, `Unknown` or `No-Face`."""
    return lambda request: result_for(request, name)


def result_for(
    request: RecognitionRequest, name: str, *, outcome: Outcome | None = None, detail: str | None = None
) -> RecognitionResult:
    """A result with a plausible face where there is one."""
    by_name = {NO_FACE: Outcome.NO_FACE, UNKNOWN: Outcome.UNKNOWN}
    decided = outcome or by_name.get(name, Outcome.MATCH)
    matches = (ResultMatch(identity=name, similarity=0.8, threshold=0.5),) if decided is Outcome.MATCH else ()
    face = Face(
        box=ResultBox(x_min=1.5, y_min=2, x_max=30, y_max=40),
        probability=0.999,
        landmarks=((1.0, 2.0),) * 5,
        matches=matches,
    )
    return RecognitionResult(
        request_id=request.request_id,
        result=name,
        filename=request.filename,
        outcome=decided,
        detail=detail,
        faces=(face,) if decided in {Outcome.MATCH, Outcome.UNKNOWN} else (),
        completed_at=datetime.now(UTC),
    )


def picture(form: str = "JPEG", size: tuple[int, int] = (32, 24)) -> bytes:
    """A small picture in the given format."""
    buffer = BytesIO()
    Image.new("RGB", size, (90, 120, 30)).save(buffer, form)
    return buffer.getvalue()


def upload(client: FlaskClient, body: bytes | None = None, filename: str = "image_01.jpg") -> TestResponse:
    """Send one picture."""
    return client.post("/", data={"inputFile": (BytesIO(picture() if body is None else body), filename)})
