"""A worker's look for notices that EC2 takes its instance back."""

from facerec.aws.instance_metadata import SpotNotices
from facerec.processes.addresses import LOOPBACK, free_port
from tests.fakes.metadata import FakeMetadata
from tests.support.logs import capture_logs

INTERRUPTION = "/latest/meta-data/spot/instance-action"


def test_outage_of_the_metadata_service_is_no_notice() -> None:
    """It is logged once, however often the service is asked."""
    with capture_logs() as logs:
        notices = SpotNotices(LOOPBACK, free_port(), every_seconds=0)
        assert [notices.interrupted() for _ in range(3)] == [False, False, False]
    assert [record["event"] for record in logs] == ["instance_metadata_unreachable"]


def test_page_of_something_else_is_no_notice() -> None:
    """A worker that took it for one would drain for good."""
    with FakeMetadata("i-1", "us-east-1") as metadata:
        metadata.documents[INTERRUPTION] = "<html>Sign in</html>"
        assert not SpotNotices(LOOPBACK, int(metadata.url.rsplit(":", 1)[1])).interrupted()


def test_notice_stays_after_it_was_given() -> None:
    """EC2 never withdraws it."""
    with FakeMetadata("i-1", "us-east-1") as metadata:
        port = int(metadata.url.rsplit(":", 1)[1])
        notices = SpotNotices(LOOPBACK, port, every_seconds=0)
        assert not notices.interrupted()
        metadata.documents[INTERRUPTION] = '{"action": "terminate"}'
        assert notices.interrupted()
        del metadata.documents[INTERRUPTION]
        assert notices.interrupted()
