"""What a checked photo is good for, for a person's name. Pure."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from facerec.gallery.names import same_person
from facerec.messages import SUITABLE, Enrolment, RecognitionResult, ResultMatch
from facerec.operations import Enrol

State = Literal["good", "look_alike", "poor", "duplicate", "other_name", "several", "none"]

_STATES: dict[str, State] = {
    SUITABLE: "good",
    "too_small": "poor",
    "poor_quality": "poor",
    "several_faces": "several",
    "no_face": "none",
    "invalid_image": "none",
}
"""By the status of `CheckEnrolment`; the photo of `duplicate` is the same person's or another one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an enrolment of one face would be, and what the reader has to decide before."""

    state: State
    checked: Enrolment
    number: int | None
    """The face by its place in the result; `None` is the one that an enrolment takes by default."""
    look_alikes: tuple[ResultMatch, ...]
    """Other people at or above the threshold, the most similar first."""

    def operation(self, identity: str, *, force: bool) -> Enrol:
        """Return the enrolment of this face."""
        if self.number is None:
            return Enrol(identity=identity, force=force)
        if self.number == 0:
            return Enrol(identity=identity, faces="primary", force=force)
        return Enrol(identity=identity, faces="numbered", number=self.number, force=force)

    def allows(self, confirmed: AbstractSet[str], *, force: bool) -> bool:
        """Whether it may be enrolled, by a reader who has been warned of the look-alikes `confirmed`."""
        if self.state in {"several", "none"} or (self.state == "poor" and not force):
            return False
        return self.state in {"duplicate", "other_name"} or {each.identity for each in self.look_alikes} <= confirmed


def verdict(result: RecognitionResult, name: str, number: int | None = None) -> Verdict:
    """Return the verdict on a face of a photo that was checked; without a `number`, on the default one.

    An empty `name` is that of nobody. A number that the photo does not have is the default.
    """
    default = result.enrolments[0]
    checked = next((each for each in result.enrolments if each.face == number is not None), default)
    state = _STATES.get(checked.status)
    if state is None:
        state = "other_name" if name and not same_person(checked.identity, name) else "duplicate"
    look_alikes = tuple(match for match in checked.look_alikes if not name or not same_person(match.identity, name))
    if state == "good" and look_alikes:
        state = "look_alike"
    return Verdict(
        state=state,
        checked=checked,
        number=None if checked is default else checked.face,
        look_alikes=() if state in {"duplicate", "other_name"} else look_alikes,
    )
