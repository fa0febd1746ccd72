"""How soon each view of the page is drawn, and how many bytes it loads: in Chromium, on loopback, with an empty cache.

    python -m benchmarks.page
    python -m benchmarks.page --people 1000 --photos 10

The web tier is real, with waitress and without compression; its stores are in memory. The last line is one JSON object:
for each view the medians of the first contentful paint and of the longest time that the page did not react, and the
bytes by type. Photos count apart, since their number is the collection's. It exits with 1 if a view is over a limit.

With more than 60 people, `browsing` has what a reader of all of them waits for, at this CPU's speed and at a quarter of
it: "Show more" (medians), a search among all that are shown then, and the address of ten pages. Each has the time until
the list is there, and the longest time that the page did not react.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from playwright.sync_api import Browser, CDPSession, Page

from benchmarks.measure import machine
from facerec.client import Client
from facerec.web.pages.paging import PAGE_SIZE
from tests.fakes.drawn_faces import DrawnFace, with_faces
from tests.fakes.portraits import portrait
from tests.support.browser import chromium, watched
from tests.support.sample_site import fill, serve_site

LIMIT_PAINT_MS = 1000
LIMIT_BYTES = 300_000
VIEWS = {"recognise": "/", "people": "/people", "unknown": "/unknown", "jobs": "/jobs", "fleet": "/fleet"}
REPORT_EVERY = 100
_CARD = ".person-card"
SETTLE_MS = 1500
"""For what a view loads after it was drawn."""

_OBSERVE = """
window.pauses = [];
new PerformanceObserver((list) => window.pauses.push(...list.getEntries().map((one) => one.duration)))
  .observe({type: "longtask", buffered: true});
"""
SLOWER = (1, 4)
"""By how much the CPU is slowed down while people are browsed."""

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


@dataclass
class Load:
    """One load of a view."""

    paint_ms: float = 0
    pause_ms: float = 0
    """The longest time for which the page did not react."""
    size: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes on the wire by type, heads included; `photos` are pictures that are no files of the page."""
    requests: int = 0

    @property
    def weight(self) -> int:
        """The bytes without photos."""
        return sum(size for kind, size in self.size.items() if kind != "photos")


def main() -> None:
    """Measure every view, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="loads of each view (default: %(default)s)")
    parser.add_argument("--people", type=int, default=0, help="so many more people are enrolled first")
    parser.add_argument("--photos", type=int, default=10, help="photos of each of them (default: %(default)s)")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with serve_site() as site, chromium() as browser:
        with tempfile.TemporaryDirectory() as folder:
            fill(site, Path(folder))
        _enrol(site.url, chosen.people, chosen.photos)
        loads = {name: [_load(browser, site.url, path) for _ in range(chosen.rounds)] for name, path in VIEWS.items()}
        browsing = {f"cpu/{slower}": _browse(browser, site.url, slower) for slower in SLOWER} if chosen.people else {}
        version = browser.version
    views = {name: _summary(each) for name, each in loads.items()}
    heavy = [name for name, view in views.items() if view["bytes"] > LIMIT_BYTES or view["paint_ms"] > LIMIT_PAINT_MS]
    figures = {"machine": machine(), "chromium": version, "people": chosen.people, "views": views, "browsing": browsing}
    print(json.dumps(figures))
    if heavy:
        sys.exit(f"over {LIMIT_PAINT_MS} ms or {LIMIT_BYTES // 1000} kB: {', '.join(heavy)}")


def _enrol(url: str, people: int, photos: int) -> None:
    """Enrol more people; the photos of one differ in their embeddings, not in their pixels."""
    with Client(url) as client:
        for number in range(people):
            name = f"Person {number:04}"
            pixels = portrait(name)
            for take in range(photos):
                picture = with_faces(pixels, [DrawnFace(name, side=240, take=take)])
                client.photos.add(name, picture, filename=f"{take}.jpg")
            if not (number + 1) % REPORT_EVERY:
                print(f"{number + 1} people enrolled", file=sys.stderr)


def _load(browser: Browser, url: str, path: str) -> Load:
    load = Load()
    with watched(browser, url) as (page, watch):
        page.add_init_script(_OBSERVE)
        _count(page.context.new_cdp_session(page), load)
        page.goto(path, wait_until="load")
        page.wait_for_timeout(SETTLE_MS)
        load.paint_ms = page.evaluate(_PAINT)
        load.pause_ms = _longest_pause(page)
        if problems := watch.verdict():
            raise RuntimeError(f"the browser saw errors in {path}: {problems}")
    return load


def _browse(browser: Browser, url: str, slower: int) -> dict[str, dict[str, int]]:
    """Show people by and by, search among them, and open the address of ten pages."""

    def step(act: Callable[[], object], there: Callable[[], object]) -> tuple[float, float]:
        page.evaluate("window.pauses = []")
        begun = time.perf_counter()
        act()
        there()
        waited = 1000 * (time.perf_counter() - begun)
        page.wait_for_timeout(SETTLE_MS / 3)  # the browser tells of a pause after it
        return waited, _longest_pause(page)

    with watched(browser, url) as (page, _):
        page.add_init_script(_OBSERVE)
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
        page.goto("/people")
        cards, button = page.locator(_CARD), page.locator("#more a")
        cards.first.wait_for()
        more = []
        while button.count():
            more.append(step(button.click, cards.nth(cards.count()).wait_for))
        search = step(
            lambda: page.get_by_role("searchbox").fill("1"),
            lambda: cards.nth(PAGE_SIZE).wait_for(state="detached"),
        )
        address = step(lambda: page.goto("/people?page=10"), cards.first.wait_for)
    steps = {"more": more, "search": [search], "address": [address]}
    return {
        name: {
            "ms": round(statistics.median(waited for waited, _ in each)),
            "pause_ms": round(statistics.median(pause for _, pause in each)),
        }
        for name, each in steps.items()
    }


def _longest_pause(page: Page) -> float:
    pauses: list[float] = page.evaluate("window.pauses")
    return max(pauses, default=0.0)


def _count(session: CDPSession, load: Load) -> None:
    """Count the bytes of everything that the page loads."""
    kinds: dict[str, str] = {}

    def answered(event: dict[str, Any]) -> None:
        is_photo = event["type"] == "Image" and "/assets/" not in event["response"]["url"]
        kinds[event["requestId"]] = "photos" if is_photo else event["type"].lower()

    def loaded(event: dict[str, Any]) -> None:
        load.requests += 1
        load.size[kinds.get(event["requestId"], "other")] += int(event["encodedDataLength"])

    session.on("Network.responseReceived", answered)
    session.on("Network.loadingFinished", loaded)
    session.send("Network.enable")


def _summary(loads: list[Load]) -> dict[str, Any]:
    largest = max(loads, key=lambda load: load.weight)
    return {
        "paint_ms": round(statistics.median(load.paint_ms for load in loads)),
        "pause_ms": round(statistics.median(load.pause_ms for load in loads)),
        "bytes": largest.weight,
        "by_type": dict(sorted(largest.size.items())),
        "requests": largest.requests,
    }


if __name__ == "__main__":
    main()
