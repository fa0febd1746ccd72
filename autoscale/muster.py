"""The fleet sorted by phase, and whether anything is heard of it: pure."""

from dataclasses import dataclass

from autoscale.observation import ACTIVE, Instance, Limits, Observation, Phase, Power

_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Muster:
    """Each phase in the order of the numbers."""

    by_phase: dict[Phase, list[Instance]]
    silent: tuple[Instance, ...] = ()
    """Those that run, pass EC2's checks, and have said nothing for too long."""
    heard: bool = False
    """Whether any worker is heard."""

    @classmethod
    def of(cls, observation: Observation, fleet: tuple[Instance, ...], limits: Limits, now: float) -> "Muster":
        """Sort the fleet of an observation."""
        by_phase: dict[Phase, list[Instance]] = {name: [] for name in Phase}
        silent, heard = [], False
        for instance in sorted(fleet, key=lambda one: one.number):
            by_phase[observation.phase(instance, limits, now)].append(instance)
            quiet = observation.silent(instance, limits, now)
            heard = heard or quiet is False
            if quiet and not instance.impaired:
                silent.append(instance)
        return cls(by_phase, tuple(silent), heard)

    def __getitem__(self, name: Phase) -> list[Instance]:
        """Those in that phase."""
        return self.by_phase[name]

    @property
    def active(self) -> int:
        """What counts towards the cap."""
        return sum(len(self.by_phase[name]) for name in ACTIVE)

    @property
    def deaf(self) -> bool:
        """Whether silence says nothing of the silent: of several instances not one is heard.

        Then it is more likely that workers cannot report than that all have died. Who was just ended for it, and who
        boots and may yet be heard, are of the several.
        """
        ending = sum(one.power is Power.SHUTTING_DOWN for one in self[Phase.STOPPING])
        return bool(self.silent) and not self.heard and len(self.silent) + len(self[Phase.BOOTING]) + ending >= _SEVERAL

    def free_numbers(self, count: int) -> list[int]:
        """The lowest numbers that nobody has."""
        taken = {one.number for members in self.by_phase.values() for one in members}
        numbers: list[int] = []
        candidate = 1
        while len(numbers) < count:
            if candidate not in taken:
                numbers.append(candidate)
            candidate += 1
        return numbers
