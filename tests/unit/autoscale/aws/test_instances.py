"""What is read from EC2's description of an instance."""

from datetime import UTC, datetime
from typing import Any

import pytest

from autoscale.aws.instances import Description
from autoscale.observation import Power

LAUNCHED = datetime(2026, 3, 4, tzinfo=UTC)
INSTANCE: Any = {"InstanceId": "i-1", "State": {"Name": "running"}, "LaunchTime": LAUNCHED}


@pytest.mark.parametrize("state", [{"State": {"Name": "hibernating"}}, {"State": {"Code": 999}}, {"State": {}}])
def test_instance_in_an_unknown_state_counts_as_running(state: Any) -> None:
    """It may work and be billed; the other instances of the reading are decided on."""
    assert Description.of(INSTANCE | state).power is Power.RUNNING


def test_instance_without_tags_or_times_is_read() -> None:
    """It has no name, and was launched long ago."""
    bare = Description.of({"InstanceId": "i-1", "Tags": [{"Key": "Name"}]})
    assert (bare.name, bare.token, bare.launched_at, bare.stopped_at) == (None, None, 0.0, None)


def test_reason_without_a_date_has_no_time_of_a_stop() -> None:
    """EC2 writes it into a sentence."""
    reason = "User initiated (2026-03-04 05:06:07 GMT)"
    stopped = Description.of(INSTANCE | {"StateTransitionReason": reason})
    assert stopped.stopped_at == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()
    broken = Description.of(INSTANCE | {"StateTransitionReason": reason.replace("-03-", "-13-")})
    assert broken.stopped_at is None
