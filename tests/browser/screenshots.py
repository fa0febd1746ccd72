"""Pictures of every view for the eye: `python -m tests.browser.screenshots DIR`; it is no test.

Each scene is shown on a desktop, on a phone and in dark colours. A scene that the browser sees errors in is named.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from playwright.sync_api import Browser, FilePayload, Page

from facerec.echo import echo
from facerec.web.pages.layout import VIEWS
from tests.fakes.drawn_faces import DrawnFace
from tests.fakes.portraits import portrait
from tests.support.browser import PHONE, chromium, settle, watched
from tests.support.fleet_records import busy_hour, show
from tests.support.page_routes import page_paths
from tests.support.sample_site import fill, sample_arguments, serve_site

DEVICES: dict[str, dict[str, Any]] = {"desktop": {}, "phone": PHONE, "dark": {"color_scheme": "dark"}}


def _nothing(_page: Page) -> None:
    """Show the page as it comes."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    name: str
    path: str
    act: Callable[[Page], None] = _nothing


PAUSE_MS = 500
"""For what a view loads after it was shown."""

PROBES = {
    "group.jpg": portrait("Ada Lovelace", "a stranger", "Grace Hopper", take=8),
    "alan.jpg": portrait("Alan Turing", take=8),
    "blurred.jpg": portrait(DrawnFace("Radia Perlman", side=240, quality=0.3, take=3)),
    "valley.jpg": portrait(),
    "notes.jpg": b"no picture",
}


def _recognise(page: Page) -> None:
    files: list[FilePayload] = [
        {"name": name, "mimeType": "image/jpeg", "buffer": body} for name, body in PROBES.items()
    ]
    page.locator("input[type=file]").first.set_input_files(files)
    page.wait_for_timeout(2 * PAUSE_MS)


ACTS = [Scene("recognised", "/", _recognise)]
ERRORS = [Scene("error-not-found", "/nowhere"), Scene("error-collection", "/people?collection=No%20such")]


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--only", default="", metavar="WORD", help="only scenes whose name has this word")
    parser.add_argument("--device", choices=list(DEVICES), action="append", help="may be repeated; default: all")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with chromium() as browser:
        for url, scene in _scenes():
            if chosen.only in scene.name:
                for device in chosen.device or DEVICES:
                    _take(browser, url, scene, device, chosen.folder)


def _scenes() -> Iterator[tuple[str, Scene]]:
    """Serve the sites one after the other, with their scenes."""
    with serve_site() as site:
        for view in VIEWS:
            yield site.url, Scene(f"{view.name}-empty", "/" if view.name == "recognise" else f"/{view.name}")
        yield from ((site.url, scene) for scene in ERRORS)
        with tempfile.TemporaryDirectory() as folder:
            fill(site, Path(folder))
        show(site.tier, busy_hour(time.time()))
        for endpoint, path in page_paths(site, sample_arguments(site)).items():
            yield site.url, Scene(endpoint.removeprefix("page_").removesuffix(".index").replace(".", "-"), path)
        yield from ((site.url, scene) for scene in ACTS)


def _take(browser: Browser, url: str, scene: Scene, device: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with watched(browser, url, **DEVICES[device]) as (page, watch):
        page.goto(scene.path)
        scene.act(page)
        page.wait_for_timeout(PAUSE_MS)
        settle(page)
        path = folder / f"{scene.name}-{device}.png"
        page.screenshot(path=path, full_page=True)
        echo(str(path))
        for problem in watch.verdict():
            echo(f"  {problem}")


if __name__ == "__main__":
    main()
