"""What the codes of MQTT mean for a message."""

import pytest
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped] # it ships no types
from awscrt.mqtt5 import PubackReasonCode  # type: ignore[import-untyped] # as above

from facerec.edge.mqtt_reasons import why_refused


@pytest.mark.parametrize(
    "code",
    [PubackReasonCode.NOT_AUTHORIZED, PubackReasonCode.TOPIC_NAME_INVALID, PubackReasonCode.PAYLOAD_FORMAT_INVALID],
)
def test_message_that_would_fail_again_is_refused(code: PubackReasonCode) -> None:
    """Sending it again would block those after it."""
    assert why_refused(None, code) is not None


@pytest.mark.parametrize(
    "code",
    [
        PubackReasonCode.UNSPECIFIED_ERROR,
        PubackReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
        PubackReasonCode.PACKET_IDENTIFIER_IN_USE,
        PubackReasonCode.QUOTA_EXCEEDED,
        None,
    ],
)
def test_message_that_met_a_fault_or_a_quota_is_sent_again(code: PubackReasonCode | None) -> None:
    """It is in the spool until then."""
    assert why_refused(None, code) is None


def test_packet_that_the_client_does_not_take_is_refused_and_a_lost_one_is_not() -> None:
    """The client's own errors have names."""
    assert why_refused(AwsCrtError(0, "AWS_ERROR_MQTT5_PACKET_VALIDATION", "too large"), None) is not None
    assert why_refused(AwsCrtError(0, "AWS_ERROR_MQTT_TIMEOUT", "no answer"), None) is None
