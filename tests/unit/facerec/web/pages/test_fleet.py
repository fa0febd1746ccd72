"""The view of the fleet."""

import re
import time
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from facerec.errors import QueueMissing, Transient
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from tests.fakes.fleet import a_record
from tests.fakes.web_tier import FakeWebTier


@pytest.fixture
def tier() -> FakeWebTier:
    """A web tier in open mode."""
    return FakeWebTier()


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def test_present_has_queue_instances_and_decisions(tier: FakeWebTier, client: FlaskClient) -> None:
    """As fragments of the page, with texts of the autoscaler as text."""
    tier.backlog.counts = replace(tier.backlog.counts, visible=41, in_flight=7)
    tier.history.record(replace(a_record(time.time(), "<3 open", booting=3), actions="launch 2-4"))
    for path in ("/fleet", "/fleet/now"):
        text = re.sub(r"\s+", " ", client.get(path).text)
        assert '<data value="41">41</data>' in text
        assert '<data value="3">3</data> booting' in text
        assert "<td>launch 2-4</td> <td>&lt;3 open</td>" in text
    assert "<html" not in client.get("/fleet/now").text


def test_series_are_columns_of_the_range(tier: FakeWebTier, client: FlaskClient) -> None:
    """A long range is asked for less often."""
    now = time.time()
    tier.history.record(a_record(now - 1800))
    tier.history.record(a_record(now, needed=4))
    tier.traffic.sample()
    hour, quarter = (client.get(f"/fleet/series?range={name}").get_json() for name in ("1h", "15m"))
    assert hour["instances"]["needed"][:2] == [1, None]
    assert quarter["instances"]["needed"][0] == 4
    assert hour["queue"]["at"] == hour["instances"]["at"]
    assert hour["traffic"]["answers"] == [0.0]
    assert (hour["problem"], hour["until"] - hour["since"]) == (None, 3600)
    assert [client.get(f"/fleet/series?range={name}").get_json()["every_seconds"] for name in ("15m", "24h")] == [
        4.5,
        432,
    ]


def test_unknown_range_is_refused(client: FlaskClient) -> None:
    """With those that there are."""
    for path in ("/fleet", "/fleet/now", "/fleet/series"):
        response = client.get(f"{path}?range=1y", headers={"HX-Request": "true"})
        assert (response.status_code, response.text) == (400, "the range is one of 15m, 1h, 6h, 24h, 7d")


def test_source_that_cannot_be_read_is_named(tier: FakeWebTier, client: FlaskClient) -> None:
    """The view itself is never an error."""
    tier.backlog.outage, tier.history.outage = QueueMissing("the-queue"), Transient("no table today")
    response = client.get("/fleet")
    assert response.status_code == 200
    assert "The queue cannot be read" in response.text
    assert response.text.count("records cannot be read: no table today") == 2
    assert client.get("/fleet/series").get_json()["problem"] == "no table today"


def test_silent_autoscaler_is_told_from_an_idle_one(tier: FakeWebTier, client: FlaskClient) -> None:
    """An idle fleet has no records, and is known."""
    record = a_record(time.time() - 100)
    tier.history.record(record)
    assert "stopped recording" in client.get("/fleet/now").text
    other = FakeWebTier()
    other.history.record(replace(record, visible=0, in_flight=0, needed=0, serving=0))
    text = other.app.test_client().get("/fleet/now").text
    assert "stopped recording" not in text
    assert '<data value="4">4</data> stopped' in text


def test_fleet_links_to_flower_where_there_is_one(client: FlaskClient) -> None:
    """Its address is a setting."""
    assert "Flower" not in client.get("/fleet").text
    settings = Settings(web=WebSettings.model_validate({"flower_url": "http://127.0.0.1:5555"}))
    assert 'href="http://127.0.0.1:5555/"' in FakeWebTier(settings).app.test_client().get("/fleet").text
