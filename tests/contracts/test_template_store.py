"""One suite for every template store: the in-memory one, DynamoDB as ministack has it, and as moto has it."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto import mock_aws

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.errors import AlreadyEnrolled, ConfigurationError, Transient
from facerec.ports import Template, TemplateStore
from facerec.provision import provisioning
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template, make_threshold, of_dimension
from tests.support.emulated import EmulatedAws

WRITERS = 8

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Table:
    """An empty table, and the clients to reach it."""

    clients: Clients
    name: str


@pytest.fixture(scope="session")
def clients(emulator: EmulatedAws) -> Clients:
    """Clients of the emulator, shared: to make them takes longer than most tests here."""
    return Clients(emulator.settings)


@pytest.fixture
def table(clients: Clients) -> Table:
    """A table of the test's own on the emulator."""
    return empty_table(clients)


@pytest.fixture(scope="module")
def moto_clients() -> Iterator[Clients]:
    """Clients of moto, which answers within this process while the fixture lives."""
    clients = Clients(Settings(aws=AwsSettings()))  # the environment may point at the emulator already
    with mock_aws():
        yield clients


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> TemplateStore:
    """An empty store of each kind."""
    if request.param == "memory":
        return InMemoryTemplateStore()
    kind = "clients" if request.param == "ministack" else "moto_clients"
    table = empty_table(request.getfixturevalue(kind))
    return DynamoTemplateStore(table.clients, table.name)


def empty_table(clients: Clients) -> Table:
    """A table as `facerec provision` makes it, without the other resources."""
    return Table(
        clients,
        provisioning._table(clients, "TEMPLATES_TABLE", f"test-{uuid.uuid4().hex[:12]}", ("collection", "item")).name,
    )


def ids(templates: Iterator[Template]) -> list[str]:
    """The templates' ids in their order."""
    return [template.template_id for template in templates]


def test_an_empty_collection_has_version_0_and_no_templates(store: TemplateStore) -> None:
    """Asking for a collection that nobody has written is no error."""
    assert store.version("nowhere") == 0
    assert list(store.templates("nowhere")) == []
    assert store.collections() == []


def test_a_template_comes_back_as_it_was_added(store: TemplateStore) -> None:
    """Every field survives the trip, the embedding bit by bit, names in any script."""
    added = make_template(1, "José 李 👩‍🚀")
    store.add(added)
    (found,) = store.templates("default")
    assert found.embedding.dtype == np.float32
    assert found.embedding.tobytes() == added.embedding.tobytes()
    assert fields(found) == fields(added)


def test_models_of_different_dimensions_share_a_collection(store: TemplateStore) -> None:
    """Each template comes back with as many numbers as it had."""
    added = [of_dimension(128, make_template(1)), make_template(2, model_id=OTHER_MODEL)]
    for template in added:
        store.add(template)
    changes = store.changes("default", store.version("default") - 1)
    assert changes is not None
    for found in (list(store.templates("default")), [*store.templates("default")][:1] + list(changes.added)):
        assert [np.array_equal(one.embedding, other.embedding) for one, other in zip(found, added, strict=True)] == [
            True,
            True,
        ]


def test_a_template_without_a_photo_comes_back_without_one(store: TemplateStore) -> None:
    """An imported template has no photo, and its source may be nothing."""
    added = replace(make_template(1), photo=None, source="")
    store.add(added)
    (found,) = store.templates("default")
    assert fields(found) == fields(added)


def test_every_change_raises_the_version(store: TemplateStore) -> None:
    """Workers see from the version alone that there is something new."""
    versions = [store.version("default")]
    for change in (
        lambda: store.add(make_template(1)),
        lambda: store.add(make_template(2)),
        lambda: store.remove("default", [make_template(1).template_id]),
    ):
        change()
        versions.append(store.version("default"))
    assert versions == sorted(set(versions))


def test_the_same_id_is_refused_with_the_name_of_its_owner(store: TemplateStore) -> None:
    """One photo cannot be two people; the refusal changes nothing."""
    store.add(make_template(1, "Ada Lovelace"))
    version = store.version("default")
    with pytest.raises(AlreadyEnrolled) as refused:
        store.add(make_template(1, "Grace Hopper"))
    assert (refused.value.identity, refused.value.template_id) == ("Ada Lovelace", make_template(1).template_id)
    assert store.version("default") == version
    assert [found.identity for found in store.templates("default")] == ["Ada Lovelace"]


def test_templates_come_in_the_order_of_their_ids(store: TemplateStore) -> None:
    """Lists are stable, whatever the order of enrolment."""
    for number, identity in ((3, "Grace"), (2, "Ada"), (1, "Grace"), (4, "Ada")):
        store.add(make_template(number, identity))
    assert ids(store.templates("default")) == [make_template(number).template_id for number in (1, 2, 3, 4)]


def test_templates_are_read_while_they_are_taken(store: TemplateStore) -> None:
    """Nothing is asked before the first is, and what is added before that is there."""
    found = store.templates("default")
    store.add(make_template(1))
    assert ids(found) == [make_template(1).template_id]


def test_a_page_is_read_when_it_is_needed(moto_clients: Clients) -> None:
    """A collection of any size passes through little memory."""
    table = empty_table(moto_clients)
    store = DynamoTemplateStore(table.clients, table.name)
    for number in range(6):
        store.add(replace(make_template(number), source="x" * 300_000))  # four of them are more than a page
    queries: list[object] = []
    events = table.clients.dynamodb.meta.events

    def count(**_: object) -> None:
        queries.append(1)

    events.register("before-call.dynamodb.Query", count)
    try:
        found = store.templates("default")
        next(found)
        assert len(queries) == 1
        assert len(list(found)) == 5
        assert len(queries) > 1
    finally:
        events.unregister("before-call.dynamodb.Query", count)


def test_collections_are_apart(store: TemplateStore) -> None:
    """The same id may be in two collections, and a change of one is none of the other."""
    store.add(make_template(1, collection="staff"))
    store.add(make_template(1, collection="guests"))
    assert store.collections() == ["guests", "staff"]
    version = store.version("guests")
    assert store.remove("staff", [make_template(1).template_id]) == 1
    assert store.version("guests") == version
    assert len(ids(store.templates("guests"))) == 1


def test_a_collection_is_listed_while_it_holds_templates(store: TemplateStore) -> None:
    """The last removal takes it off the list, the next enrolment brings it back, and its version never falls."""
    store.add(make_template(1, collection="staff"))
    store.remove("staff", [make_template(1).template_id])
    assert store.collections() == []
    version = store.version("staff")
    store.add(make_template(1, collection="staff"))
    assert store.collections() == ["staff"]
    assert store.version("staff") > version


def test_removing_counts_what_was_there(store: TemplateStore) -> None:
    """Unknown and repeated ids are not counted, and the others go."""
    for number in (1, 2, 3):
        store.add(make_template(number))
    wanted = [make_template(number).template_id for number in (2, 9, 1, 2)]
    assert store.remove("default", wanted) == 2
    assert ids(store.templates("default")) == [make_template(3).template_id]


def test_removing_nothing_changes_nothing(store: TemplateStore) -> None:
    """No worker reloads for a removal that found nothing."""
    store.add(make_template(1))
    version = store.version("default")
    assert store.remove("default", [make_template(2).template_id]) == 0
    assert store.remove("default", []) == 0
    assert store.version("default") == version


def test_a_threshold_comes_back_as_it_was_set(store: TemplateStore) -> None:
    """Every field survives the trip; a second one takes the first one's place."""
    assert store.threshold("default", MODEL) is None
    store.set_threshold("default", MODEL, make_threshold(0.4321))
    assert store.threshold("default", MODEL) == make_threshold(0.4321)
    store.set_threshold("default", MODEL, make_threshold(0.6))
    assert store.threshold("default", MODEL) == make_threshold(0.6)


def test_thresholds_are_apart_by_collection_and_model(store: TemplateStore) -> None:
    """Setting one neither shows nor changes another."""
    store.set_threshold("default", MODEL, make_threshold(0.4))
    assert store.threshold("default", OTHER_MODEL) is None
    assert store.threshold("staff", MODEL) is None
    assert store.version("staff") == 0


def test_a_threshold_can_be_removed(store: TemplateStore) -> None:
    """The model's own applies again; removing one that is not there is no error."""
    store.set_threshold("default", MODEL, make_threshold())
    store.set_threshold("default", MODEL, None)
    assert store.threshold("default", MODEL) is None
    store.set_threshold("default", MODEL, None)


def test_every_change_of_a_threshold_raises_the_version(store: TemplateStore) -> None:
    """Workers see it as they see an enrolment."""
    versions = [store.version("default")]
    for threshold in (make_threshold(0.4), make_threshold(0.5), None):
        store.set_threshold("default", MODEL, threshold)
        versions.append(store.version("default"))
    assert versions == sorted(set(versions))


def test_a_change_of_a_threshold_is_a_change_without_templates(store: TemplateStore) -> None:
    """A reader need not read the collection anew for it."""
    store.add(make_template(1))
    since = store.version("default")
    store.set_threshold("default", MODEL, make_threshold())
    changes = store.changes("default", since)
    assert changes is not None
    assert (changes.version, list(changes.added), list(changes.removed)) == (store.version("default"), [], [])


def test_a_threshold_is_no_template(store: TemplateStore) -> None:
    """A collection with nothing but a threshold is not listed; removing everyone keeps the threshold."""
    store.set_threshold("staff", MODEL, make_threshold())
    assert store.collections() == []
    assert list(store.templates("staff")) == []
    store.add(make_template(1, collection="staff"))
    assert store.remove("staff", [make_template(1).template_id]) == 1
    assert store.threshold("staff", MODEL) == make_threshold()


def test_changes_lead_from_any_version_to_the_present(store: TemplateStore) -> None:
    """A reader that applies the changes has what a reader of the whole has, however far behind it was."""
    known: dict[int, set[str]] = {}
    steps: Sequence[Callable[[], object]] = (
        lambda: store.add(make_template(1)),
        lambda: store.add(make_template(2)),
        lambda: store.remove("default", [make_template(1).template_id, make_template(2).template_id]),
        lambda: store.add(make_template(3)),
        lambda: store.add(make_template(1, "someone else")),
    )
    for step in steps:
        step()
        known[store.version("default")] = set(ids(store.templates("default")))
    present = known[store.version("default")]
    for version, then in known.items():
        changes = store.changes("default", version)
        assert changes is not None
        assert changes.version == store.version("default")
        assert then - set(changes.removed) | {template.template_id for template in changes.added} == present
    changes = store.changes("default", min(known))
    assert changes is not None
    assert {template.identity for template in changes.added} == {"Ada Lovelace", "someone else"}
    assert changes.added[0].embedding.dtype == np.float32


def test_no_change_changes_nothing(store: TemplateStore) -> None:
    """A reader that is not behind is told so."""
    store.add(make_template(1))
    changes = store.changes("default", store.version("default"))
    assert changes is not None
    assert (changes.version, list(changes.added), list(changes.removed)) == (store.version("default"), [], [])


def test_changes_of_another_history_are_not_told(store: TemplateStore) -> None:
    """A version that the store never had, or from before it was made anew, leads nowhere."""
    store.add(make_template(1))
    assert store.changes("default", store.version("default") + 1) is None
    assert store.changes("default", store.version("default") - 5) is None


@pytest.mark.parametrize("kind", ["memory", "ministack", "moto"])
def test_only_the_last_changes_are_kept(kind: str, request: pytest.FixtureRequest) -> None:
    """The log is bounded; a reader that is too far behind must read the whole."""
    store: TemplateStore
    if kind == "memory":
        store = InMemoryTemplateStore(kept_changes=3)
    else:
        table = empty_table(request.getfixturevalue("clients" if kind == "ministack" else "moto_clients"))
        store = DynamoTemplateStore(table.clients, table.name, kept_changes=3)
    versions = []
    for number in range(6):
        store.add(make_template(number))
        versions.append(store.version("default"))
    assert [store.changes("default", version) is None for version in versions] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)  # moto's tables are not safe among threads
def test_concurrent_adds_all_stay(store: TemplateStore) -> None:
    """Eight writers at once: every template is there, and the version counts each of them once."""
    numbers = range(10 * WRITERS)
    store.add(make_template(len(numbers)))
    version = store.version("default")
    at_once(WRITERS, lambda number: store.add(make_template(number)), numbers)
    assert ids(store.templates("default")) == [make_template(number).template_id for number in range(len(numbers) + 1)]
    assert store.version("default") == version + len(numbers)


@pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)  # as above
def test_of_concurrent_adds_of_one_photo_one_wins(store: TemplateStore) -> None:
    """Eight people claim the same photo at once: one gets it, and the others are told who."""

    def claim(number: int) -> str | AlreadyEnrolled:
        try:
            store.add(make_template(1, f"claimant {number}"))
        except AlreadyEnrolled as exc:
            return exc
        return f"claimant {number}"

    answers = at_once(WRITERS, claim, range(WRITERS))
    (owner,) = (found.identity for found in store.templates("default"))
    assert [answer for answer in answers if isinstance(answer, str)] == [owner]
    assert {answer.identity for answer in answers if isinstance(answer, AlreadyEnrolled)} == {owner}


@pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)  # as above
def test_concurrent_removals_count_each_template_once(store: TemplateStore) -> None:
    """Two operators who remove the same people together remove each template once."""
    for number in range(20):
        store.add(make_template(number))
    wanted = [make_template(number).template_id for number in range(20)]
    assert sum(at_once(4, lambda _: store.remove("default", wanted), range(4))) == 20
    assert store.collections() == []


@pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)  # as above
def test_a_collection_larger_than_one_page_comes_whole(store: TemplateStore) -> None:
    """DynamoDB answers in pages of 1 MB; 600 templates are more than that, and more than one transaction removes."""
    numbers = range(600)
    at_once(WRITERS, lambda number: store.add(make_template(number)), numbers)
    wanted = [make_template(number).template_id for number in numbers]
    assert ids(store.templates("default")) == wanted
    version = store.version("default")
    changes = store.changes("default", version - 300)
    assert changes is not None
    assert len(changes.added) == 300
    assert store.remove("default", wanted[:250]) == 250
    assert ids(store.templates("default")) == wanted[250:]
    assert store.version("default") > version


def test_lost_races_are_tried_again(table: Table) -> None:
    """A cancelled transaction is repeated after a pause of random length, longer each time, and then succeeds."""
    pauses: list[float] = []
    store = DynamoTemplateStore(table.clients, table.name, sleep=pauses.append)
    with rivals(table.clients, wins=5):
        store.add(make_template(1))
    assert len(pauses) == 5
    assert all(0 <= pause <= 0.02 * 2**attempt for attempt, pause in enumerate(pauses))
    assert store.version("default") > 0


def test_races_lost_too_often_are_transient(table: Table) -> None:
    """The writer gives up after some seconds, having written nothing."""
    pauses: list[float] = []
    store = DynamoTemplateStore(table.clients, table.name, sleep=pauses.append)
    with rivals(table.clients, wins=1000), pytest.raises(Transient, match="retry later"):
        store.add(make_template(1))
    assert 5 < len(pauses) < 30
    assert max(pauses) <= 1
    assert store.version("default") == 0


def test_a_missing_table_says_what_to_do(clients: Clients) -> None:
    """Before `facerec provision` every call names the remedy."""
    store = DynamoTemplateStore(clients, "no-such-table")
    calls: Sequence[Callable[[], object]] = (
        lambda: store.version("default"),
        lambda: next(store.templates("default")),
        lambda: store.add(make_template(1)),
        store.collections,
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match="facerec provision"):
            call()


def fields(found: Template) -> dict[str, Any]:
    """Everything but the embedding, for comparison."""
    return {name: getattr(found, name) for name in Template.__slots__ if name != "embedding"}


def at_once(threads: int, call: Callable[[int], Answer], items: Sequence[int]) -> list[Answer]:
    """Call from many threads, and raise what any of them raised."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, items))


@contextmanager
def rivals(clients: Clients, wins: int) -> Iterator[None]:
    """Let the first transactions be answered as DynamoDB answers the loser of a race."""
    reasons = [{"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}, {"Code": "None"}]
    lost = {
        "Error": {"Code": "TransactionCanceledException", "Message": "Transaction cancelled"},
        "CancellationReasons": reasons,
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    answers = iter([(AWSResponse("", 400, HTTPHeaders(), None), lost)] * wins)

    def answer(**_: Any) -> Any:
        return next(answers, None)

    events = clients.dynamodb.meta.events
    events.register("before-call.dynamodb.TransactWriteItems", answer)
    try:
        yield
    finally:
        events.unregister("before-call.dynamodb.TransactWriteItems", answer)
