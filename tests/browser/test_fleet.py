"""The view of the fleet in a browser: moving charts, decisions, and what it says when there is nothing to see."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from playwright.sync_api import Page, expect

from facerec.errors import Transient
from tests.fakes.drawn_faces import photo
from tests.fakes.fleet import a_record
from tests.support.served_web_tier import ServedWebTier

CheckAccessible = Callable[[Page], None]


def keep_busy(site: ServedWebTier) -> None:
    """Let the autoscaler have recorded ten minutes of work, with a decision a minute, and an upload be counted."""
    now = time.time()
    for n in range(60):
        record = a_record(now - 600 + 10 * n, f"{n} open; {n // 6} instances are enough", visible=n, serving=n // 6)
        site.tier.history.record(replace(record, actions="" if n % 6 else f"launch {n // 6 + 1}"))
    assert site.upload(photo("Ada")).status_code == HTTPStatus.OK
    site.tier.traffic.sample()


def chart(page: Page, name: str) -> str:
    """What a chart says to readers who do not see it, once it says something."""
    place = page.locator(f"[data-chart={name}]")
    expect(place.locator("canvas")).to_be_visible()
    return place.get_attribute("aria-label") or ""


def test_fleet_without_an_autoscaler_shows_the_queue(
    page: Page, site: ServedWebTier, check_accessible: CheckAccessible
) -> None:
    """And says what it does not know; the queue is followed by itself."""
    site.tier.backlog.counts = replace(site.tier.backlog.counts, visible=1234, in_flight=5)
    page.goto("/fleet")
    expect(page.locator("#fleet-now")).to_contain_text("1,234")
    expect(page.get_by_text("No autoscaler has recorded anything in the last week.")).to_be_visible()
    expect(page.get_by_text("No autoscaler has changed the fleet in the last hour.")).to_be_visible()
    assert chart(page, "queue") == "Backlog and in flight. Now: 1,234 waiting, 5 in flight"
    assert "unknown serving" in chart(page, "instances")
    check_accessible(page)


def test_charts_tiles_and_decisions_move_with_a_new_record(
    page: Page, site: ServedWebTier, check_accessible: CheckAccessible
) -> None:
    """Within seconds, without a reload; a range that has no new point yet keeps its tiles current."""
    keep_busy(site)
    page.goto("/fleet?range=15m")
    assert " serving, " in chart(page, "instances")
    assert "answers per second" in chart(page, "throughput")
    assert "95th percentile" in chart(page, "wait")
    rows = page.locator(".decisions tbody tr")
    expect(rows.first).to_be_visible()
    check_accessible(page)
    before = page.locator("[data-chart=instances] canvas").screenshot()

    record = a_record(time.time(), "99 open; <b>9</b> instances clear it within 10 s", serving=2, booting=7, needed=9)
    site.tier.history.record(replace(record, actions="launch 3-9"))
    expect(rows.first).to_contain_text("launch 3-9")
    expect(rows.first).to_contain_text("<b>9</b> instances")  # no markup
    expect(page.locator("#fleet-now .phases")).to_contain_text("7 booting")
    expect(page.locator("[data-chart=instances]")).to_have_attribute(
        "aria-label", "Instances by phase. Now: 2 serving, 7 booting, 0 draining, 4 stopped; 9 needed"
    )
    assert page.locator("[data-chart=instances] canvas").screenshot() != before

    page.get_by_role("link", name="the last 7 days").click()
    expect(page.get_by_role("heading", name="Over the last 7 days")).to_be_visible()
    site.tier.history.record(a_record(time.time(), serving=3))
    expect(page.locator("#fleet-now .phases")).to_contain_text("3 serving")


def test_pointer_on_a_chart_shows_the_values_of_that_time(page: Page, site: ServedWebTier) -> None:
    """In the reader's format; the other charts show the same time, and without the pointer it is the latest."""
    keep_busy(site)
    page.goto("/fleet")
    chart(page, "queue")
    legends = [page.locator(f"[data-chart={name}] .u-legend .u-value").first for name in ("queue", "instances")]
    latest = legends[0].text_content() or ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d", latest)
    page.locator("[data-chart=queue] .u-over").hover(position={"x": 100, "y": 50})
    expect(legends[0]).not_to_have_text(latest)
    pointed = legends[0].text_content() or ""
    expect(legends[1]).to_have_text(pointed)
    page.mouse.move(0, 0)
    expect(legends[0]).not_to_have_text(pointed)


def test_unreadable_source_is_named_and_the_others_stay(page: Page, site: ServedWebTier) -> None:
    """It is back as soon as it can be read, also in the charts of a long range."""
    site.tier.history.record(a_record(time.time(), serving=2))
    page.goto("/fleet?range=7d")
    expect(page.locator("#fleet-now .phases")).to_contain_text("2 serving")
    site.tier.history.outage = Transient("DynamoDB does not answer")
    expect(page.locator("#fleet-now")).to_contain_text("records cannot be read: DynamoDB does not answer")
    expect(page.locator("#fleet-now .tile").first).to_contain_text("0")
    page.reload()
    assert "unknown serving" in chart(page, "instances")
    site.tier.history.outage = None
    site.tier.history.record(a_record(time.time(), serving=3))
    expect(page.locator("#fleet-now .phases")).to_contain_text("3 serving")
    expect(page.locator("[data-chart=instances]")).to_have_attribute("aria-label", re.compile("3 serving"))


def test_fleet_fits_a_phone(phone: Page, site: ServedWebTier, check_accessible: CheckAccessible) -> None:
    """Nothing is wider than the screen, also the reasons of decisions."""
    keep_busy(site)
    phone.goto("/fleet")
    chart(phone, "wait")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_accessible(phone)
