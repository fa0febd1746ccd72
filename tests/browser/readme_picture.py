"""The picture of the README: `python -m tests.browser.readme_picture docs/images/page.png`; it is no test.

The real local system recognises the sample photos of `examples/` on its page.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from facerec.echo import echo
from tests.support.browser import chromium, watched
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT

EXAMPLES = CHECKOUT / "examples"
PROBES = ("image_05.jpg", "image_02.jpg")
SIZE = {"width": 1120, "height": 900}
COLOURS = 160
"""Enough for two photos; the file must be small."""


def main() -> None:
    """Start the system, enrol the sample people, and take the picture."""
    target = Path(sys.argv[1])
    environ = {"FACEREC_MODEL__DIR": str(CHECKOUT / ".cache" / "model")}
    with (
        tempfile.TemporaryDirectory() as state,
        LocalSystem(Path(state), environ=environ, start_timeout_seconds=300) as system,
    ):
        system.run("enrol", "--folder", str(EXAMPLES / "gallery"))
        with chromium() as browser, watched(browser, system.url, viewport=SIZE) as (page, watch):
            picture = _recognise(page)
            for problem in watch.verdict():
                echo(problem)
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(BytesIO(picture)) as shown:
        shown.convert("RGB").quantize(COLOURS).save(target, optimize=True)
    echo(f"{target}: {target.stat().st_size // 1000} kB")


def _recognise(page: Page) -> bytes:
    """Show what the page says about the sample photos."""
    page.goto("/")
    page.locator("input[type=file]").first.set_input_files([EXAMPLES / "probes" / name for name in PROBES])
    expect(page.locator("#photos .result")).to_have_count(len(PROBES))
    page.evaluate("scrollTo(0, 0)")
    page.locator("#photos .faces li").first.hover()  # beside others a box shows its name only then
    return page.screenshot()


if __name__ == "__main__":
    main()
