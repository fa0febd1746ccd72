"""The device guide names what a device can log."""

import re

from tests.support.processes import CHECKOUT

_LOGGED = re.compile(r'log\.(?:warning|error|exception)\(\s*"([a-z_]+)"')
_DROPPED = re.compile(r'_drop\(\s*"[a-z_]+", "([a-z_]+)"')
_OUTAGES = re.compile(r'OutageLog\(\s*"([a-z_]+)"')


def test_guide_says_what_to_do_for_each_problem_that_a_device_logs() -> None:
    """Warnings, errors and outages of the component, by the names of their events."""
    sources = "".join(path.read_text() for path in sorted((CHECKOUT / "facerec/edge").rglob("*.py")))
    outages = {f"{subject}_unreachable" for subject in _OUTAGES.findall(sources)}
    events = {*_LOGGED.findall(sources), *_DROPPED.findall(sources), *outages}
    assert len(events) > 10
    guide = (CHECKOUT / "docs/edge.md").read_text()
    assert sorted(event for event in events if f"`{event}`" not in guide) == []
