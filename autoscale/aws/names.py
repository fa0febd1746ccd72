"""The `Name` tags of the fleet's instances."""

from collections.abc import Container, Mapping, Sequence

import structlog

from autoscale.aws.ec2 import Ec2
from autoscale.aws.instances import Claim, Description, name_of
from facerec.errors import FacerecError

log = structlog.get_logger(__name__)

_AT_ONCE = 20
"""Each name is a request of its own: after so many the others wait for the next reading of the fleet."""


class Names:
    """Gives instances their names, by and by. Not to be shared by threads."""

    def __init__(self, ec2: Ec2) -> None:
        self._ec2 = ec2
        self._given: dict[str, int] = {}
        """EC2 may show an instance without the name that it was given a moment ago."""
        self._left = _AT_ONCE

    def begin(self, known: Container[str | None]) -> None:
        """A reading begins; forget all instances but the known ones."""
        self._left = _AT_ONCE
        self._given = {instance_id: number for instance_id, number in self._given.items() if instance_id in known}

    def give(self, claims: Sequence[Claim], described: Mapping[str, Description]) -> None:
        """Name those that lack theirs; one that EC2 does not know yet has its turn later."""
        for claim in claims:
            seen = described.get(claim.instance_id or "")
            if seen is None or seen.name == name_of(claim.number) or self._given.get(seen.instance_id) == claim.number:
                continue
            if not self._left:
                return
            self._left -= 1
            try:
                self._ec2.name(seen.instance_id, name_of(claim.number))
            except FacerecError as exc:
                log.info("instance_not_named", instance_id=seen.instance_id, number=claim.number, reason=str(exc))
            else:
                self._given[seen.instance_id] = claim.number
