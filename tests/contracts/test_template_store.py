"""One suite for every template store: memory, and DynamoDB in ministack and in moto."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, TypeVar

import numpy as np
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto import mock_aws

from facerec.aws.clients import Clients
from facerec.aws.dynamodb import collection_changes
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.errors import AlreadyEnrolled, ConfigurationError, Transient
from facerec.ports import DamagedTemplate, Template, TemplateStore
from facerec.provision import provisioning
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from facerec.unknown_records import companion
from tests.fakes.templates import (
    MODEL,
    OTHER_MODEL,
    InMemoryTemplateStore,
    make_rejection,
    make_template,
    make_threshold,
    of_dimension,
)
from tests.support.emulated import EmulatedAws
from tests.support.logs import capture_logs

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


def test_empty_collection_has_version_0_and_no_templates(store: TemplateStore) -> None:
    """Empty collection has version 0 and no templates."""
    assert store.version("nowhere") == 0
    assert list(store.templates("nowhere")) == []
    assert store.collections() == []


def test_template_keeps_every_field(store: TemplateStore) -> None:
    """The embedding bit by bit, names in any script."""
    added = make_template(1, "José 李 👩‍🚀")
    store.add(added)
    (found,) = store.templates("default")
    assert found.embedding.dtype == np.float32
    assert found.embedding.tobytes() == added.embedding.tobytes()
    assert fields(found) == fields(added)


def test_models_of_different_dimensions_share_a_collection(store: TemplateStore) -> None:
    """Each model's templates keep their own dimension."""
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


def test_template_without_a_photo_has_none(store: TemplateStore) -> None:
    """Its source may be empty."""
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


def test_same_id_is_refused_with_its_owner(store: TemplateStore) -> None:
    """The refusal changes nothing."""
    store.add(make_template(1, "Ada Lovelace"))
    version = store.version("default")
    with pytest.raises(AlreadyEnrolled) as refused:
        store.add(make_template(1, "Grace Hopper"))
    assert (refused.value.identity, refused.value.template_id) == ("Ada Lovelace", make_template(1).template_id)
    assert store.version("default") == version
    assert [found.identity for found in store.templates("default")] == ["Ada Lovelace"]


def test_templates_are_sorted_by_id(store: TemplateStore) -> None:
    """Templates are sorted by id."""
    for number, identity in ((3, "Grace"), (2, "Ada"), (1, "Grace"), (4, "Ada")):
        store.add(make_template(number, identity))
    assert ids(store.templates("default")) == [make_template(number).template_id for number in (1, 2, 3, 4)]


def test_templates_are_read_lazily(store: TemplateStore) -> None:
    """What is added before the first is taken is included."""
    found = store.templates("default")
    store.add(make_template(1))
    assert ids(found) == [make_template(1).template_id]


def test_templates_are_read_page_by_page(moto_clients: Clients) -> None:
    """Templates are read page by page."""
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


def test_collections_are_separate(store: TemplateStore) -> None:
    """The same id may be in two collections."""
    store.add(make_template(1, collection="staff"))
    store.add(make_template(1, collection="guests"))
    assert store.collections() == ["guests", "staff"]
    version = store.version("guests")
    assert store.remove("staff", [make_template(1).template_id]) == 1
    assert store.version("guests") == version
    assert len(ids(store.templates("guests"))) == 1


def test_owners_are_the_names_by_template(store: TemplateStore) -> None:
    """Exactly as they were stored."""
    names = ["Ada", "ada", "Ada\u200d", "Ada"]
    for number, name in enumerate(names):
        store.add(make_template(number, name, collection="staff"))
    store.set_threshold("staff", MODEL, make_threshold())
    assert store.owners("staff") == {make_template(n).template_id: name for n, name in enumerate(names)}
    assert store.owners("guests") == {}


def test_template_is_found_by_its_id(store: TemplateStore) -> None:
    """In its collection only."""
    store.add(make_template(1, collection="staff"))
    found = store.template("staff", make_template(1).template_id)
    assert found is not None
    assert (found.identity, found.photo) == ("Ada Lovelace", make_template(1, collection="staff").photo)
    assert store.template("staff", make_template(2).template_id) is None
    assert store.template("guests", make_template(1).template_id) is None


def test_entry_has_every_field_but_the_embedding(store: TemplateStore) -> None:
    """Also the external id and the quality, which may be missing."""
    added = [make_template(1, "José 李"), replace(make_template(2), external_id="badge:7", photo=None, quality=0.75)]
    for template in added:
        store.add(template)
    found = list(store.entries("default"))
    for entry, template in zip(found, added, strict=True):
        assert not hasattr(entry, "embedding")
        assert all(getattr(entry, name.name) == getattr(template, name.name) for name in dataclass_fields(entry))
    one = store.entry("default", added[1].template_id)
    assert one is not None
    assert (one.identity, one.external_id, one.quality) == ("Ada Lovelace", "badge:7", 0.75)
    assert store.entry("default", "f" * 32) is store.entry("nowhere", added[0].template_id) is None


def test_entries_continue_after_an_id(store: TemplateStore) -> None:
    """So that an answer can have pages; the id need not exist any more."""
    added = [make_template(number) for number in range(1, 6)]
    for template in added:
        store.add(template)
    ids = [template.template_id for template in added]
    assert [entry.template_id for entry in store.entries("default", at_once=2)] == ids
    assert [entry.template_id for entry in store.entries("default", ids[1], at_once=2)] == ids[2:]
    store.remove("default", ids[1:2])
    assert [entry.template_id for entry in store.entries("default", ids[1])] == ids[2:]
    assert list(store.entries("default", ids[-1])) == []


def test_templates_are_found_by_their_ids(store: TemplateStore) -> None:
    """Those of another collection are not."""
    added = [make_template(number) for number in range(1, 4)]
    for template in added:
        store.add(template)
    wanted = [added[0].template_id, added[2].template_id]
    assert store.find("default", [*wanted, "f" * 32, wanted[0]]).keys() == {*wanted}
    assert store.find("nowhere", wanted) == store.find("default", []) == {}


def test_templates_are_given_to_another_person(store: TemplateStore) -> None:
    """More than one transaction takes; readers see it as a change, and missing templates do not count."""
    for number in range(100):
        store.add(make_template(number))
    before = store.version("default")
    everything = [make_template(number).template_id for number in range(102)]
    assert store.reassign("default", everything, "Grace Hopper") == 100
    assert set(store.owners("default").values()) == {"Grace Hopper"}
    changes = store.changes("default", before)
    assert changes is not None
    assert {template.identity for template in changes.added} == {"Grace Hopper"}
    assert len(changes.added) == store.count("default") == 100


def test_collection_is_listed_while_it_has_templates(store: TemplateStore) -> None:
    """Its version never falls."""
    store.add(make_template(1, collection="staff"))
    store.remove("staff", [make_template(1).template_id])
    assert store.collections() == []
    version = store.version("staff")
    store.add(make_template(1, collection="staff"))
    assert store.collections() == ["staff"]
    assert store.version("staff") > version


def test_templates_of_a_collection_are_counted(store: TemplateStore) -> None:
    """Of all models; a removal counts."""
    assert store.count("staff") == 0
    for number in range(3):
        store.add(make_template(number, collection="staff", model_id=(MODEL, OTHER_MODEL)[number % 2]))
    assert store.count("staff") == 3
    store.remove("staff", [make_template(1).template_id])
    assert (store.count("staff"), store.count("default")) == (2, 0)


def test_removal_counts_existing_templates(store: TemplateStore) -> None:
    """Unknown and repeated ids do not count."""
    for number in (1, 2, 3):
        store.add(make_template(number))
    wanted = [make_template(number).template_id for number in (2, 9, 1, 2)]
    assert store.remove("default", wanted) == 2
    assert ids(store.templates("default")) == [make_template(3).template_id]


def test_removal_of_nothing_changes_nothing(store: TemplateStore) -> None:
    """The version stays."""
    store.add(make_template(1))
    version = store.version("default")
    assert store.remove("default", [make_template(2).template_id]) == 0
    assert store.remove("default", []) == 0
    assert store.version("default") == version


def test_threshold_keeps_every_field(store: TemplateStore) -> None:
    """A second one replaces the first."""
    assert store.threshold("default", MODEL) is None
    store.set_threshold("default", MODEL, make_threshold(0.4321))
    assert store.threshold("default", MODEL) == make_threshold(0.4321)
    store.set_threshold("default", MODEL, make_threshold(0.6))
    assert store.threshold("default", MODEL) == make_threshold(0.6)


def test_thresholds_are_separate_by_collection_and_model(store: TemplateStore) -> None:
    """Thresholds are separate by collection and model."""
    store.set_threshold("default", MODEL, make_threshold(0.4))
    assert store.threshold("default", OTHER_MODEL) is None
    assert store.threshold("staff", MODEL) is None
    assert store.version("staff") == 0


def test_threshold_can_be_removed(store: TemplateStore) -> None:
    """Also one that does not exist."""
    store.set_threshold("default", MODEL, make_threshold())
    store.set_threshold("default", MODEL, None)
    assert store.threshold("default", MODEL) is None
    store.set_threshold("default", MODEL, None)


def test_threshold_change_raises_the_version(store: TemplateStore) -> None:
    """Threshold change raises the version."""
    versions = [store.version("default")]
    for threshold in (make_threshold(0.4), make_threshold(0.5), None):
        store.set_threshold("default", MODEL, threshold)
        versions.append(store.version("default"))
    assert versions == sorted(set(versions))


def test_threshold_change_has_no_templates(store: TemplateStore) -> None:
    """Threshold change has no templates."""
    store.add(make_template(1))
    since = store.version("default")
    store.set_threshold("default", MODEL, make_threshold())
    changes = store.changes("default", since)
    assert changes is not None
    assert (changes.version, list(changes.added), list(changes.removed)) == (store.version("default"), [], [])


def test_threshold_is_no_template(store: TemplateStore) -> None:
    """A collection with only a threshold is not listed; removing all templates keeps it."""
    store.set_threshold("staff", MODEL, make_threshold())
    assert store.collections() == []
    assert list(store.templates("staff")) == []
    store.add(make_template(1, collection="staff"))
    assert store.remove("staff", [make_template(1).template_id]) == 1
    assert store.threshold("staff", MODEL) == make_threshold()


def test_rejection_keeps_every_field(store: TemplateStore) -> None:
    """The embedding bit by bit; a second one of its id replaces it, and others stay."""
    store.reject(make_rejection(1, "Somebody else"))
    for added in (make_rejection(2, "José 李", model_id=OTHER_MODEL), make_rejection(1)):
        store.reject(added)
    found, other = store.rejections("default")
    assert found.embedding.tobytes() == make_rejection(1).embedding.tobytes()
    assert found.embedding.dtype == np.float32
    assert (found.identity, found.rejected_at) == ("Ada Lovelace", make_rejection(1).rejected_at)
    assert (other.identity, other.model_id, other.source) == ("José 李", OTHER_MODEL, "photo 2.jpg")
    entries = store.rejection_entries("default")
    assert [entry.rejection_id for entry in entries] == [found.rejection_id, other.rejection_id]
    assert not hasattr(entries[0], "embedding")
    assert entries[1].identity == "José 李"
    assert store.rejections("staff") == store.rejection_entries("staff") == []


def test_rejection_is_no_template(store: TemplateStore) -> None:
    """It makes no collection, and neither its person's change nor removal touches it."""
    store.reject(make_rejection(1))
    assert store.collections() == []
    assert list(store.templates("default")) == []
    assert store.count("default") == 0
    store.add(make_template(2))
    store.reassign("default", [make_template(2).template_id], "Grace Hopper")
    store.remove("default", [make_template(2).template_id])
    assert [found.identity for found in store.rejections("default")] == ["Ada Lovelace"]


def test_rejections_are_reassigned_and_removed(store: TemplateStore) -> None:
    """Missing ids do not count; every change raises the version, and has no templates."""
    first = store.version("default")
    store.add(make_template(1))
    versions = [store.version("default")]
    rejection_ids = [make_rejection(number).rejection_id for number in (1, 2, 9)]
    for number in (1, 2, 3):
        store.reject(make_rejection(number))
    versions.append(store.version("default"))
    assert store.reassign_rejections("default", rejection_ids, "Grace") == 2
    assert [found.identity for found in store.rejections("default")] == ["Grace", "Grace", "Ada Lovelace"]
    versions.append(store.version("default"))
    assert store.remove_rejections("default", [*rejection_ids, rejection_ids[0]]) == 2
    assert [found.identity for found in store.rejections("default")] == ["Ada Lovelace"]
    versions.append(store.version("default"))
    assert first < versions[0]
    assert versions == sorted(set(versions))
    assert store.remove_rejections("default", rejection_ids) == 0
    assert store.reassign_rejections("default", rejection_ids, "Grace") == 0
    changes = store.changes("default", versions[0])
    assert changes is not None
    assert (changes.version, list(changes.added), list(changes.removed)) == (versions[-1], [], [])
    assert store.count("default") == 1


def test_changes_lead_from_any_version_to_the_current_one(store: TemplateStore) -> None:
    """Changes lead from any version to the current one."""
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


def test_changed_ids_are_those_of_every_kind_of_change(store: TemplateStore) -> None:
    """Added, given to another person, removed; a rejection and a threshold touch no template."""
    templates = [make_template(number) for number in range(3)]
    for template in templates:
        store.add(template)
    since = store.version("default")
    store.set_threshold("default", MODEL, make_threshold())
    store.reject(make_rejection(1))
    changed = store.changed_ids("default", since)
    assert changed == (store.version("default"), frozenset())
    store.reassign("default", [templates[0].template_id], "Grace Hopper")
    store.remove("default", [templates[1].template_id])
    store.add(make_template(7))
    touched = {templates[0].template_id, templates[1].template_id, make_template(7).template_id}
    assert store.changed_ids("default", since) == (store.version("default"), frozenset(touched))
    assert store.changed_ids("default", store.version("default")) == (store.version("default"), frozenset())


def test_changes_since_long_ago_are_all_of_them(store: TemplateStore) -> None:
    """More than are read by their keys."""
    store.add(make_template(0))
    since = store.version("default")
    for number in range(1, collection_changes.FEW_CHANGES + 2):
        store.add(make_template(number))
    changed = store.changed_ids("default", since)
    assert changed is not None
    assert changed == (store.version("default"), frozenset(store.owners("default")) - {make_template(0).template_id})


def test_changes_since_the_current_version_are_empty(store: TemplateStore) -> None:
    """Changes since the current version are empty."""
    store.add(make_template(1))
    changes = store.changes("default", store.version("default"))
    assert changes is not None
    assert (changes.version, list(changes.added), list(changes.removed)) == (store.version("default"), [], [])


def test_changes_since_an_unknown_version_are_none(store: TemplateStore) -> None:
    """Also since one from before the table was recreated."""
    store.add(make_template(1))
    for since in (store.version("default") + 1, store.version("default") - 5):
        assert store.changes("default", since) is None
        assert store.changed_ids("default", since) is None


@pytest.mark.parametrize("kind", ["memory", "ministack", "moto"])
def test_only_the_last_changes_are_recorded(kind: str, request: pytest.FixtureRequest) -> None:
    """Only the last changes are recorded."""
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
    """Eight writers at once: the version counts each template once."""
    numbers = range(10 * WRITERS)
    store.add(make_template(len(numbers)))
    version = store.version("default")
    at_once(WRITERS, lambda number: store.add(make_template(number)), numbers)
    assert ids(store.templates("default")) == [make_template(number).template_id for number in range(len(numbers) + 1)]
    assert store.version("default") == version + len(numbers)


@pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)  # as above
def test_one_of_concurrent_adds_of_one_photo_succeeds(store: TemplateStore) -> None:
    """The others get the owner's name."""

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
def test_collection_larger_than_one_page_is_complete(store: TemplateStore) -> None:
    """DynamoDB's pages have 1 MB; 600 templates also need more than one transaction to remove."""
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


def test_lost_races_are_retried_with_backoff(table: Table) -> None:
    """Lost races are retried with backoff."""
    pauses: list[float] = []
    store = DynamoTemplateStore(table.clients, table.name, sleep=pauses.append)
    with rivals(table.clients, wins=5):
        store.add(make_template(1))
    assert len(pauses) == 5
    assert all(0 <= pause <= 0.02 * 2**attempt for attempt, pause in enumerate(pauses))
    assert store.version("default") > 0


def test_races_lost_too_often_are_transient(table: Table) -> None:
    """Nothing is written."""
    pauses: list[float] = []
    store = DynamoTemplateStore(table.clients, table.name, sleep=pauses.append)
    with rivals(table.clients, wins=1000), pytest.raises(Transient, match="retry later"):
        store.add(make_template(1))
    assert 5 < len(pauses) < 30
    assert max(pauses) <= 1
    assert store.version("default") == 0


Change = Callable[[dict[str, Any]], object]


def without(name: str) -> Change:
    """A change that removes an attribute."""
    return lambda item: item.pop(name)


def having(name: str, value: Any) -> Change:
    """A change of an attribute."""
    return lambda item: item.update({name: value})


DAMAGES: dict[str, Change] = {
    "no embedding": without("embedding"),
    "no identity": without("identity"),
    "no model": without("model_id"),
    "no probability": without("probability"),
    "no time": without("enrolled_at"),
    "no source": without("source"),
    "nothing but the key": lambda item: [item.pop(name) for name in list(item) if name not in {"collection", "item"}],
    "embedding is text": having("embedding", {"S": "numbers"}),
    "embedding is empty": having("embedding", {"B": b""}),
    "embedding is cut": having("embedding", {"B": bytes(2047)}),
    "identity is a number": having("identity", {"N": "7"}),
    "identity is empty": having("identity", {"S": ""}),
    "identity is blank": having("identity", {"S": " "}),
    "identity is nothing": having("identity", {"NULL": True}),
    "probability is text": having("probability", {"S": "0.9"}),
    "probability is too large": having("probability", {"N": "7"}),
    "time is a number": having("enrolled_at", {"N": "1767225600"}),
    "time is no time": having("enrolled_at", {"S": "NaN"}),
    "time has no zone": having("enrolled_at", {"S": "2026-01-01T00:00:00"}),
    "quality is too large": having("quality", {"N": "1.5"}),
    "photo is no reference": having("photo", {"S": "{}"}),
    "a later version": having("version", {"N": "2"}),
}


@pytest.mark.parametrize("kind", ["clients", "moto_clients"])
def test_damaged_items_are_left_out_and_reported(kind: str, request: pytest.FixtureRequest) -> None:
    """By their ids, to readers of the collection and of its changes; the report repeats no value."""
    table = empty_table(request.getfixturevalue(kind))
    store = DynamoTemplateStore(table.clients, table.name)
    store.add(make_template(0, "Ada"))
    since = store.version("default")
    expected = {}
    for number, (name, change) in enumerate(DAMAGES.items(), start=1):
        template = make_template(number, "Grace Hopper")
        store.add(template)
        edit(table, f"template#{template.template_id}", change)
        expected[template.template_id] = name
    store.add(make_template(99, "Alan"))

    damaged: list[DamagedTemplate] = []
    assert [found.identity for found in store.templates("default", damaged)] == ["Ada", "Alan"]
    changes = store.changes("default", since)
    assert changes is not None
    assert [found.identity for found in changes.added] == ["Alan"]
    assert set(expected) <= set(changes.removed)
    for reported in (damaged, changes.damaged):
        assert {found.template_id for found in reported} == set(expected)
        assert not [found.reason for found in reported if "Grace" in found.reason]
    assert store.remove("default", sorted(expected)) == len(expected)
    assert store.collections() == ["default"]


@pytest.mark.parametrize("kind", ["clients", "moto_clients"])
def test_damaged_rejections_are_left_out_with_a_warning(kind: str, request: pytest.FixtureRequest) -> None:
    """By their ids, without a value; they can be removed."""
    table = empty_table(request.getfixturevalue(kind))
    store = DynamoTemplateStore(table.clients, table.name)
    store.reject(make_rejection(0))
    damages = ("no identity", "embedding is cut", "a later version", "nothing but the key")
    damaged = {make_rejection(number).rejection_id: damage for number, damage in enumerate(damages, start=1)}
    for number, (rejection_id, damage) in enumerate(damaged.items(), start=1):
        store.reject(make_rejection(number, "Grace Hopper"))
        edit(table, f"rejection#{rejection_id}", DAMAGES[damage])
    with capture_logs() as records:
        assert [found.identity for found in store.rejections("default")] == ["Ada Lovelace"]
    (record,) = records
    assert (record["event"], record["rejections"].keys()) == ("rejections_damaged", damaged.keys())
    assert "Grace" not in str(record)
    assert store.remove_rejections("default", list(damaged)) == len(damaged)


@pytest.mark.parametrize("damage", ["no identity", "embedding is cut"])
def test_enrolment_replaces_a_damaged_template(table: Table, damage: str) -> None:
    """To enrol the same photo again mends it; a good one stays."""
    store = DynamoTemplateStore(table.clients, table.name)
    store.add(make_template(1, "Ada"))
    edit(table, f"template#{make_template(1).template_id}", DAMAGES[damage])
    store.add(make_template(1, "Grace"))
    assert [found.identity for found in store.templates("default")] == ["Grace"]
    with pytest.raises(AlreadyEnrolled):
        store.add(make_template(1, "Ada"))


@pytest.mark.parametrize("broken", [np.full(512, np.nan), np.zeros(512), make_template(2).embedding[:128]])
def test_template_with_an_unusable_embedding_is_replaced(store: TemplateStore, broken: Any) -> None:
    """As one that cannot be read."""
    store.add(replace(make_template(1, "Ada"), embedding=broken.astype(np.float32)))
    store.add(make_template(1, "Grace"))
    assert [found.identity for found in store.templates("default")] == ["Grace"]


def test_template_of_another_model_is_not_replaced(store: TemplateStore) -> None:
    """Its dimension is another one, and right: only a hostile archive has another model's template of this id."""
    store.add(make_template(1, "Ada"))
    with pytest.raises(AlreadyEnrolled):
        store.add(of_dimension(128, make_template(1, "Grace", model_id=OTHER_MODEL)))
    assert [found.identity for found in store.templates("default")] == ["Ada"]


@pytest.mark.parametrize("kind", ["clients", "moto_clients"])
@pytest.mark.parametrize(
    "change",
    [
        without("template_ids"),
        having("template_ids", {"S": "x"}),
        having("template_ids", {"L": [{"N": "1"}]}),
        having("template_ids", {"L": [{"S": "x" * 2000}]}),
    ],
)
def test_damaged_change_record_counts_as_not_recorded(
    kind: str, change: Change, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader then reads the whole collection, and goes on with the changes after it."""
    table = empty_table(request.getfixturevalue(kind))
    store = DynamoTemplateStore(table.clients, table.name)
    versions = []
    for number in range(3):
        store.add(make_template(number))
        versions.append(store.version("default"))
    edit(table, f"change#{versions[1]:020d}", change)
    for few in (collection_changes.FEW_CHANGES, 0):
        monkeypatch.setattr(collection_changes, "FEW_CHANGES", few)
        assert store.changes("default", versions[0]) is None
        assert store.changed_ids("default", versions[0]) is None
        changes = store.changes("default", versions[1])
        assert changes is not None
        assert ids(iter(changes.added)) == [make_template(2).template_id]


def test_item_that_is_no_change_record_is_ignored(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not cost a reading of the whole collection at every change."""
    store = DynamoTemplateStore(table.clients, table.name)
    store.add(make_template(1))
    since = store.version("default")
    store.add(make_template(2))
    for name in ("change#zzz", "change#99999999999999999999"):
        table.clients.dynamodb.put_item(
            TableName=table.name, Item={"collection": {"S": "default"}, "item": {"S": name}}
        )
    monkeypatch.setattr(collection_changes, "FEW_CHANGES", 0)
    changes = store.changes("default", since)
    assert changes is not None
    assert ids(iter(changes.added)) == [make_template(2).template_id]


@pytest.mark.parametrize("kind", ["clients", "moto_clients"])
@pytest.mark.parametrize(
    "change", [without("version"), having("version", {"S": "seven"}), having("version", {"N": "1.5"})]
)
def test_damaged_version_is_replaced_by_the_next_change(
    kind: str, change: Change, request: pytest.FixtureRequest
) -> None:
    """Until then readers read the whole collection once."""
    table = empty_table(request.getfixturevalue(kind))
    store = DynamoTemplateStore(table.clients, table.name)
    store.add(make_template(1))
    before = store.version("default")
    edit(table, "#version", change)
    assert 0 < store.version("default") < before
    assert store.changes("default", before) is None
    store.add(make_template(2))
    assert store.version("default") >= before
    store.add(make_template(3))
    assert len(ids(store.templates("default"))) == 3


@pytest.mark.parametrize("kind", ["clients", "moto_clients"])
@pytest.mark.parametrize("value", [{"S": "many"}, {"NULL": True}])
def test_damaged_count_is_replaced_by_the_next_change(kind: str, value: Any, request: pytest.FixtureRequest) -> None:
    """It stops neither an enrolment nor a removal; until then the collection is listed."""
    table = empty_table(request.getfixturevalue(kind))
    store = DynamoTemplateStore(table.clients, table.name, sleep=lambda _: None)
    for number in range(3):
        store.add(make_template(number))
    edit(table, "default", having("templates", value), partition="#collections")
    assert store.collections() == ["default"]
    assert store.remove("default", [make_template(0).template_id]) == 1
    edit(table, "default", having("templates", value), partition="#collections")
    store.add(make_template(3))
    assert store.remove("default", [make_template(number).template_id for number in (1, 2)]) == 2
    assert store.collections() == ["default"]
    assert store.remove("default", [make_template(3).template_id]) == 1
    assert store.collections() == []


@pytest.mark.parametrize(
    "change", [without("value"), having("value", {"S": "x"}), having("value", {"N": "7"}), without("calibrated_at")]
)
def test_damaged_threshold_counts_as_none(table: Table, change: Change) -> None:
    """A calibration replaces it."""
    store = DynamoTemplateStore(table.clients, table.name)
    store.set_threshold("default", MODEL, make_threshold())
    edit(table, f"threshold#{MODEL}", change)
    with capture_logs() as records:
        assert store.threshold("default", MODEL) is None
    assert [record["event"] for record in records] == ["threshold_damaged"]
    store.set_threshold("default", MODEL, make_threshold(0.4))
    assert store.threshold("default", MODEL) == make_threshold(0.4)


def edit(table: Table, name: str, change: Change, partition: str = "default") -> None:
    """Change an item behind the store's back."""
    key: Any = {"collection": {"S": partition}, "item": {"S": name}}
    item: Any = table.clients.dynamodb.get_item(TableName=table.name, Key=key)["Item"]
    change(item)
    table.clients.dynamodb.put_item(TableName=table.name, Item=item)


def test_missing_table_says_what_to_do(clients: Clients) -> None:
    """`facerec provision`."""
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


def test_templates_are_copied_to_a_person_of_another_collection(store: TemplateStore) -> None:
    """Whole, once, with a change that readers of the other collection see; the first collection stays as it is."""
    own = companion("default")
    for number in (1, 2):
        store.add(make_template(number, "unknown-000000000001", own))
    ids = [make_template(number).template_id for number in (1, 2, 3)]
    before = store.version("default")
    assert store.copy(own, ids, "default", "Ada Lovelace") == 2
    assert store.copy(own, ids, "default", "Grace Hopper") == 0
    copied = store.template("default", ids[0])
    assert copied is not None
    assert (copied.identity, copied.collection) == ("Ada Lovelace", "default")
    assert np.array_equal(copied.embedding, make_template(1).embedding)
    assert set(store.owners("default").values()) == {"Ada Lovelace"}
    changes = store.changes("default", before)
    assert changes is None or [each.template_id for each in changes.added] == ids[:2]
    assert store.count("default") == store.count(own) == 2


def test_faces_of_unknown_people_are_in_no_collection_that_is_listed(store: TemplateStore) -> None:
    """They are listed apart, under the collection that they belong to."""
    store.add(make_template(1, "unknown-000000000001", companion("staff")))
    store.add(make_template(2, collection="default"))
    assert store.collections() == ["default"]
    assert store.collections_with_unknown() == ["staff"]
    store.remove(companion("staff"), [make_template(1).template_id])
    assert store.collections_with_unknown() == []
