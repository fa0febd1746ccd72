"""The app tier's instances on EC2: what there is, and every order to it, safe against crashes and late answers."""

import time
import uuid
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import replace

import structlog

from autoscale.aws.cached_reading import Polled
from autoscale.aws.capacity_pools import Offers
from autoscale.aws.ec2 import Ec2, NoSuchInstance, Refused, WrongState
from autoscale.aws.instances import Claim, Description, Order, Request, instance_of, matched, unclaimed
from autoscale.aws.launches import BATCH, Launches
from autoscale.aws.lease import DynamoLease
from autoscale.aws.names import Names
from autoscale.observation import Instance
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, LeaseLost, Throttled, Transient
from facerec.messages import Registration, WorkerReport
from facerec.ports import WorkerReports

log = structlog.get_logger(__name__)

UNSEEN_SECONDS = 300.0
"""A claim whose instance EC2 does not show for so long is void; AWS shows new instances within seconds."""
_FORGOTTEN_BY_EC2_SECONDS = 5.0
"""The same for a claim that is as old already, and whose instance this process has never seen."""
_POLL_SECONDS = 15.0
"""EC2's status checks run every minute; the default version of a template changes with a release."""
_REPEAT_SECONDS = 5.0
"""Between two tries of a launch whose outcome is not known."""
_FORGOTTEN_SECONDS = 600.0
"""A registration of no known instance that is older is left from one that has gone."""
_OF_ONE = (NoSuchInstance, Refused, WrongState)
"""What EC2 refuses to all because of one."""
_REFUSALS = (*_OF_ONE, Throttled, ConfigurationError)
"""After any other failure it is not known whether EC2 has done what it was told."""


class Ec2Fleet:
    """`Fleet` on EC2.

    `instances` also repairs what a crash left behind, while the lease is held; without it, it only reads. `now` is in
    seconds since the epoch, `clock` monotonic. Not to be shared by threads.
    """

    def __init__(
        self,
        ec2: Ec2,
        launches: Launches,
        lease: DynamoLease,
        reports: WorkerReports,
        offers: Offers,
        *,
        spot: bool = False,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = ec2
        self._launches = launches
        self._lease = lease
        self._reports = reports
        self._offers = offers
        self._spot = spot
        self._now = now
        self._clock = clock
        self._version: Polled[str | None] = Polled(
            "the launch template", ec2.default_version, fallback=None, every_seconds=_POLL_SECONDS, clock=clock
        )
        self._impaired: Polled[frozenset[str]] = Polled(
            "EC2's status checks", ec2.impaired, fallback=frozenset(), every_seconds=_POLL_SECONDS, clock=clock
        )
        self._shown: dict[str, Description] = {}
        """What EC2 last showed of an instance: its answers may lack one for a moment."""
        self._unseen: dict[tuple[str, int], float] = {}
        self._repeated: dict[str, float] = {}
        self._names = Names(ec2)

    def instances(self) -> tuple[Instance, ...]:
        """Read claims, EC2 and the workers' reports."""
        now = self._now()
        written = self._launches.all()
        described = self._ec2.described()
        registrations = self._reports.registrations()
        claims = matched(written, described)
        found = unclaimed(claims, described)
        over = self._over(claims, described, now)
        claims = [claim for claim in claims if claim not in set(over)]
        if self._lease.held:
            unchanged = set(written)
            self._launches.tell([claim for claim in claims if claim not in unchanged], over=over)
            found = self._launches.take(found)
            claims = self._repeat([*claims, *found])
            self._names.begin({claim.instance_id for claim in claims})
            self._names.give(claims, described)
            self._forget(over, claims, registrations, now)
        else:
            claims += found
        ids = {claim.instance_id for claim in claims}
        self._shown = {name: one for name, one in (self._shown | described).items() if name in ids}
        version, impaired = self._version.value(), self._impaired.value()
        if impaired & ids:  # somebody is to be ended for what may have passed since
            impaired = self._impaired.anew()
        return tuple(
            instance_of(
                claim,
                self._shown.get(claim.instance_id or ""),
                registrations.get(claim.instance_id or ""),
                default_version=version,
                impaired=claim.instance_id in impaired,
                now=now,
            )
            for claim in sorted(claims, key=lambda claim: claim.number)
        )

    def launch(self, numbers: Sequence[int]) -> None:
        """Claim the numbers, then ask EC2, offer by offer until all have an instance or no offer is left."""
        version = self._version.value() or self._ec2.default_version()
        wanted = sorted(set(numbers))
        while wanted:
            offer = self._offers.best()
            if offer is None:
                raise InsufficientCapacity(self._offers.shortage())
            batch, wanted = wanted[:BATCH], wanted[BATCH:]
            request = Request(offer, self._spot, version, len(batch))
            token, now = str(uuid.uuid4()), self._now()
            claims = self._launches.take([Claim(number, token, now, request) for number in batch])
            if claims:
                wanted = [*self._run(claims), *wanted]
            if wanted:
                self._lease.renew()  # a launch of many takes long

    def start(self, instance_ids: Sequence[str]) -> None:
        """Forget the former life's reports and orders, then record the order: from then on they count; then start."""
        claims = self._ours(instance_ids)
        self._launches.check()
        former = {name: known.report for name, known in self._reports.registrations().items()} if claims else {}
        for claim in claims:
            self._reports.forget(str(claim.instance_id))
        self._launches.order([_started(claim, former.get(str(claim.instance_id)), self._now()) for claim in claims])
        failed = self._give(self._ec2.start, claims)
        refused = {claim: exc for claim, exc in failed.items() if isinstance(exc, _REFUSALS)}
        self._launches.tell(list(refused))  # the others may be starting, so that they count
        _raise_other(failed)
        codes = {exc.code for exc in refused.values() if isinstance(exc, Refused)}
        if codes:
            raise InsufficientCapacity(
                f"EC2 has no capacity to start {len(refused)} stopped instances ({', '.join(codes)}); retry later"
            )

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Leave the order where the workers look."""
        for claim in self._ours(instance_ids):
            self._reports.order_drain(str(claim.instance_id), now)

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Take the order away."""
        for claim in self._ours(instance_ids):
            self._reports.cancel_drain(str(claim.instance_id))

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop; the numbers stay taken."""
        self._end(instance_ids, Order.STOP, self._ec2.stop)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """End; a number is free again when EC2 shows that its instance has gone."""
        missing = self._end(instance_ids, Order.TERMINATE, self._ec2.terminate)
        # Who was just launched may be unknown to EC2 because its answers lag: it is kept, and terminated again.
        over = [claim for claim in missing if self._now() - claim.made_at > UNSEEN_SECONDS]
        self._launches.tell(over=over)
        for claim in over:
            self._reports.forget(str(claim.instance_id))

    def _end(
        self, instance_ids: Sequence[str], order: Order, give: Callable[[Sequence[str]], None]
    ) -> Collection[Claim]:
        """Give the order, then record it: what may still run must count. Returns those that EC2 does not know."""
        claims = self._ours(instance_ids)
        self._launches.check()
        for index, claim in enumerate(claims, 1):
            # Until its process is ended, which takes seconds, the worker must not take tasks.
            self._check_held()
            self._reports.order_drain(str(claim.instance_id), self._now())
            if index % BATCH == 0:
                self._lease.renew()

        def held(ids: Sequence[str]) -> None:
            self._check_held()
            give(ids)

        failed = self._give(held, claims)
        ended = [claim for claim in claims if claim not in failed]
        self._launches.tell([replace(claim, order=order, ordered_at=self._now()) for claim in ended])
        _raise_other(failed)
        return failed

    def _check_held(self) -> None:
        """Raise `LeaseLost` when it took too long to get here: whoever has the lease may have called them back."""
        if not self._lease.held:
            raise LeaseLost("the lease ran out before instances were ended; whoever has it decides anew")

    def _run(self, claims: list[Claim], known: Container[str | None] = ()) -> list[int]:
        """Launch what is claimed, all by one request; returns the numbers that EC2 gave no instance, free again.

        A repeated request is answered with all that it launched, and so with `known` ones.
        """
        if not self._lease.held:  # it may have taken long to get here
            raise LeaseLost("the lease ran out before the launch; whoever has it completes the launch")
        token, request = claims[0].token, claims[0].request
        if request is None:
            return []
        try:
            given = [one for one in self._ec2.run(token, request) if one.instance_id not in known]
        except Refused as exc:
            self._offers.refuse(request.offer, exc.code)
            self._launches.tell(over=claims)
            return [claim.number for claim in claims]
        except ConfigurationError:
            self._launches.tell(over=claims)
            raise
        self._offers.accept(request.offer)
        made = [replace(claim, instance_id=one.instance_id) for claim, one in zip(claims, given, strict=False)]
        left = claims[len(made) :]
        self._launches.tell(made, over=left)
        self._names.give(made, {one.instance_id: one for one in given})
        return [claim.number for claim in left]

    def _repeat(self, claims: list[Claim]) -> list[Claim]:
        """Complete the launches whose outcome is unknown: with their token they cannot launch twice."""
        unknown: dict[str, list[Claim]] = {}
        for claim in claims:
            if claim.instance_id is None:
                unknown.setdefault(claim.token, []).append(claim)
        self._repeated = {token: at for token, at in self._repeated.items() if token in unknown}
        known = {claim.instance_id for claim in claims}
        changed = False
        for token, of_launch in unknown.items():
            if self._clock() - self._repeated.get(token, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                continue
            self._repeated[token] = self._clock()
            numbers = [claim.number for claim in of_launch]
            log.warning("launch_repeated", numbers=numbers, claimed_at=of_launch[0].made_at)
            try:
                self._run(of_launch, known)
            except (Transient, ConfigurationError) as exc:
                log.warning("launch_not_completed", reason=str(exc))
            changed = True
        return self._launches.all() if changed else claims

    def _over(self, claims: list[Claim], described: Mapping[str, Description], now: float) -> list[Claim]:
        """The claims whose instance is terminated, or which EC2 has not shown for long.

        For a moment its answers may lack one that it has shown before; one that was old when this process began to
        look, and has been absent since, has been forgotten by EC2 long ago.
        """
        clock, unseen, over = self._clock(), {}, []
        for claim in claims:
            seen, key = described.get(claim.instance_id or ""), (claim.token, claim.number)
            if seen is not None:
                if seen.power is None:
                    over.append(claim)
                continue
            unseen[key] = self._unseen.get(key, clock)
            old = now - claim.made_at > UNSEEN_SECONDS and claim.instance_id is not None
            forgotten = old and claim.instance_id not in self._shown
            if clock - unseen[key] > (_FORGOTTEN_BY_EC2_SECONDS if forgotten else UNSEEN_SECONDS):
                over.append(claim)
        self._unseen = unseen
        return over

    def _forget(
        self, over: Sequence[Claim], claims: Sequence[Claim], registrations: Mapping[str, Registration], now: float
    ) -> None:
        """Forget what the workers of instances said that are no more."""
        gone = {claim.instance_id for claim in over}
        known = {claim.instance_id for claim in claims}
        for instance_id, registration in registrations.items():
            report = registration.report
            last = max(report.reported_at if report else 0.0, registration.drain_ordered_at or 0.0)
            if instance_id in gone or (instance_id not in known and now - last > _FORGOTTEN_SECONDS):
                self._reports.forget(instance_id)

    def _ours(self, instance_ids: Sequence[str]) -> list[Claim]:
        """The claims of those instances that are of the fleet; others are never touched."""
        wanted = set(instance_ids)
        claims = [claim for claim in self._launches.all() if claim.instance_id in wanted] if wanted else []
        for stranger in wanted - {claim.instance_id for claim in claims}:
            log.warning("instance_not_of_the_fleet", instance_id=stranger)
        return claims

    def _give(self, order: Callable[[Sequence[str]], None], claims: Sequence[Claim]) -> dict[Claim, FacerecError]:
        """Give the order to all at once, or to each alone where EC2 refuses it for some; returns what failed."""
        if not claims:
            return {}
        try:
            order([str(claim.instance_id) for claim in claims])
        except FacerecError as exc:
            if len(claims) == 1 or not isinstance(exc, _OF_ONE):
                return dict.fromkeys(claims, exc)
            return {failed: why for claim in claims for failed, why in self._give(order, [claim]).items()}
        return {}


def _started(claim: Claim, former: WorkerReport | None, now: float) -> Claim:
    """The claim with the order to start, and with the worker whose reports no longer count."""
    ready_at = claim.former_ready_at if former is None else former.ready_at
    return replace(claim, order=Order.START, ordered_at=now, former_ready_at=ready_at)


def _raise_other(failed: Mapping[Claim, FacerecError]) -> None:
    """Raise a failure that is neither a shortage nor a missing instance."""
    for exc in failed.values():
        if not isinstance(exc, (NoSuchInstance, Refused)):
            raise exc
