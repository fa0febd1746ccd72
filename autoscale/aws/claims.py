"""What a launch is asked for, and what is claimed for it: pure values; times are seconds since the epoch."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Offer:
    """An instance type in a subnet; without one, in that of the launch template or of the default VPC."""

    instance_type: str
    subnet_id: str | None

    def __str__(self) -> str:
        """For people."""
        return self.instance_type + (f" in {self.subnet_id}" if self.subnet_id else "")


class Order(StrEnum):
    """What an instance was last told."""

    START = "start"
    STOP = "stop"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of RunInstances: repeated with its token it must have the same parameters."""

    offer: Offer
    spot: bool
    template_version: str
    count: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that is taken by an instance, or for one."""

    number: int
    token: str
    """The client token of the launch, shared by all that were launched at once."""
    made_at: float
    request: Request | None
    """Absent for an instance that was found without a claim."""
    instance_id: str | None = None
    """Absent until EC2 has confirmed it."""
    order: Order | None = None
    ordered_at: float = 0.0
    former_ready_at: float | None = None
    """When the worker of its life before the last start got ready, by its own clock: its reports may come late."""
