"""Makes AWS's MQTT 5 client for a device: certificates, session, timeouts."""

import json
from collections.abc import Callable
from typing import Any

from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped] # as above
from awsiot import mqtt5_client_builder  # type: ignore[import-untyped] # as above

from facerec.edge_messages import status_topic
from facerec.errors import ConfigurationError
from facerec.settings.edge import EdgeSettings

_KEEP_ALIVE_SECONDS = 60
_PING_TIMEOUT_SECONDS = 30
_ACK_TIMEOUT_SECONDS = 60
"""Beyond what a slow uplink needs for a full window: 16 messages of 128 KB take 34 s at 500 kbit/s."""
_SESSION_SECONDS = 3600
"""How long the broker keeps frames for a device that is away; the default of IoT Core."""
_MIN_BACKOFF_MS = 1_000
_MAX_BACKOFF_MS = 30_000


def make_client(
    settings: EdgeSettings,
    *,
    thing: str,
    client_id: str,
    will_delay_seconds: int,
    **callbacks: Callable[[Any], None],
) -> mqtt5.Client:
    """Return a client that has not started; raises `ConfigurationError` for files that cannot be used.

    `callbacks` are those of the builder; each is called on the client's one thread.
    """
    for name in ("endpoint", "certificate_file", "key_file"):
        if getattr(settings, name) is None:
            raise ConfigurationError(
                f"set FACEREC_EDGE__{name.upper()}; `facerec edge provision {thing}` writes `edge.env`"
            )
    for path in filter(None, (settings.certificate_file, settings.key_file, settings.ca_file)):
        try:
            path.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read ({exc.strerror})") from exc
    will = {"state": "lost", "thing": thing}
    try:
        # Port 443 makes the builder negotiate IoT Core's protocol (ALPN).
        return mqtt5_client_builder.mtls_from_path(
            str(settings.certificate_file),
            str(settings.key_file),
            endpoint=settings.endpoint,
            port=settings.port,
            ca_filepath=None if settings.ca_file is None else str(settings.ca_file),
            client_id=client_id,
            # The session on the broker keeps frames for this device also while its process is away. The client
            # has then lost its own half, the messages in flight; the spool sends those again.
            session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS,
            session_expiry_interval_sec=_SESSION_SECONDS,
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            extended_validation_and_flow_control_options=(
                mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS
            ),
            retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.FULL,
            min_reconnect_delay_ms=_MIN_BACKOFF_MS,
            max_reconnect_delay_ms=_MAX_BACKOFF_MS,
            keep_alive_interval_sec=_KEEP_ALIVE_SECONDS,
            ping_timeout_ms=_PING_TIMEOUT_SECONDS * 1000,
            ack_timeout_sec=_ACK_TIMEOUT_SECONDS,
            # Frames that are not acknowledged wait in the queue before the detector, which drops none of them.
            receive_maximum=min(settings.queue_frames, 0xFFFF),
            will=mqtt5.PublishPacket(topic=status_topic(thing), payload=json.dumps(will), qos=mqtt5.QoS.AT_LEAST_ONCE),
            will_delay_interval_sec=will_delay_seconds,
            enable_metrics_collection=False,
            **callbacks,
        )
    except (AwsCrtError, RuntimeError, ValueError) as exc:
        raise ConfigurationError(
            f"{settings.certificate_file} and {settings.key_file} are no certificate with its key, "
            f"or the certificate authorities cannot be used ({exc})"
        ) from exc
