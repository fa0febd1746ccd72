"""Results to devices, through the data plane of AWS IoT Core."""

from facerec.aws.clients import Clients, translated_for_one
from facerec.aws.sqs.results import fitting
from facerec.edge_messages import results_topic
from facerec.messages import RecognitionResult
from facerec.settings.edge import IOT_MESSAGE_BYTES


class IotDeviceResults:
    """`DeviceResults` over HTTPS; the endpoint is looked up with the first result."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def publish(self, thing: str, result: RecognitionResult) -> None:
        """Publish with QoS 1; a result that is too large has its first faces only. Raises `Refused`."""
        payload = fitting(result, IOT_MESSAGE_BYTES)
        with translated_for_one(f"send a result to the device {thing!r}"):
            self._clients.iot_data.publish(topic=results_topic(thing), qos=1, payload=payload)
