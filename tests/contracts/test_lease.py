"""One suite for every lease: in memory, and in DynamoDB as ministack and moto have it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from autoscale.aws.lease import DynamoLease, lease_owner
from facerec.aws.clients import Clients
from facerec.errors import LeaseLost, Transient
from facerec.provision import provisioning
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from tests.fakes.fleet import InMemoryLease, LeaseItem

SECONDS = 15.0


class HeldLease(Protocol):
    """`Lease`, and what its owner believes."""

    @property
    def held(self) -> bool:
        """Whether it may act."""

    def acquire_or_renew(self) -> bool:
        """Take or renew."""

    def release(self) -> None:
        """Give up."""


@dataclass
class Clock:
    """A clock to be set, in seconds; each process has its own, which began at a moment of its own."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Contest:
    """Autoscalers that contend for one lease, each with a clock of its own."""

    make: Callable[[Clock], HeldLease]
    clocks: list[Clock] = field(default_factory=list)

    def join(self) -> HeldLease:
        """Another autoscaler."""
        self.clocks.append(Clock(1000.0 * len(self.clocks)))
        return self.make(self.clocks[-1])

    def pass_time(self, seconds: float) -> None:
        """Time passes for all."""
        for clock in self.clocks:
            clock.seconds += seconds


@pytest.fixture(params=["memory", "ministack", "moto"])
def contest(request: pytest.FixtureRequest) -> Contest:
    """Each kind in turn."""
    if request.param == "memory":
        item = LeaseItem()
        return Contest(lambda clock: InMemoryLease(item, lease_seconds=SECONDS, clock=clock))
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    table = provisioning._table(clients, "FLEET_TABLE", f"test-{uuid.uuid4().hex[:12]}", ("kind", "item")).name
    return Contest(lambda clock: DynamoLease(clients, table, lease_seconds=SECONDS, clock=clock))


@pytest.fixture
def table(ministack_clients: Clients) -> str:
    """An empty table on the emulator."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    return provisioning._table(ministack_clients, "FLEET_TABLE", name, ("kind", "item")).name


def test_lease_has_one_owner(contest: Contest) -> None:
    """As long as it renews."""
    first, second = contest.join(), contest.join()
    for _ in range(10):
        assert first.acquire_or_renew()
        assert first.held
        assert not second.acquire_or_renew()
        assert not second.held
        contest.pass_time(SECONDS / 2)


def test_lease_of_a_silent_owner_is_taken_over(contest: Contest) -> None:
    """After the lease's length, not before; the former owner then waits."""
    first, second = contest.join(), contest.join()
    assert first.acquire_or_renew()
    contest.pass_time(100)
    assert not second.acquire_or_renew()  # it has only just begun to watch
    contest.pass_time(SECONDS - 1)
    assert not second.acquire_or_renew()
    contest.pass_time(2)
    assert second.acquire_or_renew()
    assert not first.acquire_or_renew()
    assert not first.held


def test_lease_expires_for_its_owner_first(contest: Contest) -> None:
    """At no moment do two autoscalers believe that they hold it."""
    first, second = contest.join(), contest.join()
    assert first.acquire_or_renew()
    assert not second.acquire_or_renew()
    for _ in range(20):
        contest.pass_time(1)
        second.acquire_or_renew()
        assert not (first.held and second.held)
    assert second.held


def test_expired_lease_is_renewed_if_it_is_still_ours(contest: Contest) -> None:
    """Meanwhile it does not count as held."""
    only = contest.join()
    assert only.acquire_or_renew()
    contest.pass_time(10 * SECONDS)
    assert not only.held
    assert only.acquire_or_renew()
    assert only.held


def test_released_lease_is_free_at_once(contest: Contest) -> None:
    """Its former owner waits like any other."""
    first, second = contest.join(), contest.join()
    assert first.acquire_or_renew()
    assert not second.acquire_or_renew()
    first.release()
    assert not first.held
    assert second.acquire_or_renew()
    assert not first.acquire_or_renew()


def test_release_without_the_lease_changes_nothing(contest: Contest) -> None:
    """Before it was held, and after it was lost."""
    first, second = contest.join(), contest.join()
    second.release()
    assert first.acquire_or_renew()
    second.release()
    assert not second.acquire_or_renew()
    contest.pass_time(SECONDS + 1)
    assert second.acquire_or_renew()
    first.release()
    assert second.acquire_or_renew()
    assert not first.acquire_or_renew()


def test_renewal_with_a_lost_answer_counts_for_waiters(
    ministack_clients: Clients, emulator: object, table: str
) -> None:
    """The next renewal is another version, so that no waiter sees silence."""
    clock = Clock()
    losing = Clients(Settings(aws=AwsSettings(endpoint_url=ministack_clients.dynamodb.meta.endpoint_url)))
    first = DynamoLease(losing, table, lease_seconds=SECONDS, clock=clock)
    second = DynamoLease(ministack_clients, table, lease_seconds=SECONDS, clock=clock)
    assert first.acquire_or_renew()

    def lost(**_: object) -> None:
        raise Transient("the answer was lost")

    losing.dynamodb.meta.events.register_first("after-call.dynamodb.UpdateItem", lost)
    with pytest.raises(Transient):
        first.acquire_or_renew()
    losing.dynamodb.meta.events.unregister("after-call.dynamodb.UpdateItem", lost)
    assert not second.acquire_or_renew()
    clock.seconds += SECONDS - 1
    assert first.acquire_or_renew()
    clock.seconds += 2
    assert not second.acquire_or_renew()
    assert first.held


def test_lease_condition_needs_the_lease(ministack_clients: Clients, table: str) -> None:
    """A former owner's condition fails in DynamoDB."""
    clock = Clock()
    first, second = (DynamoLease(ministack_clients, table, lease_seconds=SECONDS, clock=clock) for _ in range(2))
    with pytest.raises(LeaseLost):
        second.condition()
    assert first.acquire_or_renew()
    stale = first.condition()
    ministack_clients.dynamodb.transact_write_items(TransactItems=[stale])
    assert not second.acquire_or_renew()
    clock.seconds += SECONDS + 1
    assert second.acquire_or_renew()
    with pytest.raises(LeaseLost):
        first.condition()
    with pytest.raises(ministack_clients.dynamodb.exceptions.TransactionCanceledException):
        ministack_clients.dynamodb.transact_write_items(TransactItems=[stale])


def test_missing_table_names_the_remedy(ministack_clients: Clients) -> None:
    """Provisioning makes it."""
    lease = DynamoLease(ministack_clients, "nowhere", lease_seconds=SECONDS)
    with pytest.raises(Exception, match="facerec provision"):
        lease.acquire_or_renew()


@pytest.mark.parametrize("name", ["owner", "version", "lease_seconds"])
def test_damaged_lease_is_unreadable(ministack_clients: Clients, table: str, name: str) -> None:
    """Nothing is decided, and the reason names the item."""
    assert DynamoLease(ministack_clients, table, lease_seconds=SECONDS).acquire_or_renew()
    item = ministack_clients.dynamodb.scan(TableName=table)["Items"][0]
    ministack_clients.dynamodb.put_item(TableName=table, Item=item | {name: {"BOOL": True}})
    with pytest.raises(Transient, match="controller"):
        DynamoLease(ministack_clients, table, lease_seconds=SECONDS).acquire_or_renew()
    if name == "owner":
        with pytest.raises(Transient, match="controller"):
            lease_owner(ministack_clients, table)
