"""What the codes and errors of MQTT mean: whether to send a message again, and what an operator can do."""

from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types

from facerec.settings.edge import EdgeSettings

ERRORS_FROM = 0x80
"""The first reason code of MQTT 5 that is an error."""
ACK_TIMEOUT = "AWS_ERROR_MQTT_TIMEOUT"
"""No acknowledgement came in time, and the connection is there."""
BLAMING_DISCONNECTS = {
    mqtt5.DisconnectReasonCode.UNSPECIFIED_ERROR,
    mqtt5.DisconnectReasonCode.MALFORMED_PACKET,
    mqtt5.DisconnectReasonCode.PROTOCOL_ERROR,
    mqtt5.DisconnectReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    mqtt5.DisconnectReasonCode.NOT_AUTHORIZED,
    mqtt5.DisconnectReasonCode.TOPIC_NAME_INVALID,
    mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE,
    mqtt5.DisconnectReasonCode.PAYLOAD_FORMAT_INVALID,
}
"""The server ends the connection for what the device has sent."""
HANGUPS = {"AWS_ERROR_MQTT_UNEXPECTED_HANGUP", "AWS_IO_SOCKET_CLOSED"}
"""The server, or the network, ends the connection without a reason."""

_REFUSING_ACKS = {
    mqtt5.PubackReasonCode.NOT_AUTHORIZED: "the policy of the thing does not allow it",
    mqtt5.PubackReasonCode.TOPIC_NAME_INVALID: "the topic is not valid",
    mqtt5.PubackReasonCode.PAYLOAD_FORMAT_INVALID: "the payload is not valid",
}
_INVALID_PACKETS = {"AWS_ERROR_MQTT5_PACKET_VALIDATION", "AWS_ERROR_MQTT5_PUBLISH_OPTIONS_VALIDATION"}
_REJECTED_CERTIFICATE = {"AWS_IO_TLS_ERROR_READ_FAILURE", "AWS_IO_TLS_ERROR_ALERT_RECEIVED", *HANGUPS}
"""With TLS 1.3 a server looks at the client's certificate after the handshake, and then hangs up."""


def why_refused(error: BaseException | None, code: mqtt5.PubackReasonCode | None) -> str | None:
    """Return why this message would fail again; None if it may be sent again.

    `error` is the client's own, `code` that of the acknowledgement. IoT Core's other codes mean a fault or a quota.
    """
    if code in _REFUSING_ACKS:
        return _REFUSING_ACKS[code]
    if getattr(error, "name", None) in _INVALID_PACKETS or isinstance(error, ValueError):
        return f"it is no valid MQTT packet ({error})"
    return None


def why_not_connected(event: mqtt5.LifecycleConnectFailureData, settings: EdgeSettings, client_id: str) -> str:
    """Return one sentence with the reason of a failed attempt to connect, and what to do."""
    address = f"{settings.endpoint}:{settings.port}"
    if event.connack_packet is not None and event.connack_packet.reason_code is not None:
        code = event.connack_packet.reason_code.name
        return f"{address} refuses the connection ({code}); the thing's policy must allow to connect as {client_id!r}"
    name = getattr(event.exception, "name", type(event.exception).__name__)
    if name == "AWS_IO_DNS_INVALID_NAME":
        return f"the name {settings.endpoint!r} cannot be resolved; check FACEREC_EDGE__ENDPOINT"
    if name == "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE":
        return (
            f"{address} has no certificate for this name from an authority in {settings.ca_file or 'this system'}; "
            "check FACEREC_EDGE__ENDPOINT and FACEREC_EDGE__CA_FILE"
        )
    if name in _REJECTED_CERTIFICATE:
        return (
            f"{address} does not take the certificate {settings.certificate_file} ({name}); "
            "it must be active, and its policy must allow to connect"
        )
    return f"{address} cannot be reached ({event.exception})"
