"""The demonstration, as `make demo` runs it, on each emulator and each app tier that `facerec local` offers."""

import os
import re
from pathlib import Path

import pytest

from facerec.local.emulator import EmulatorKind
from tests.support.processes import CHECKOUT, run


def replies(text: str) -> list[str]:
    """The lines that answer an upload."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("image_") and ": " in line]


@pytest.mark.parametrize(
    ("kind", "tier"),
    [
        (EmulatorKind.MINISTACK, "ec2"),
        (EmulatorKind.MOTO, "ec2"),
        (EmulatorKind.MINISTACK, "serverless"),
        (EmulatorKind.MINISTACK, "edge"),
    ],
)
def test_demo_gives_the_replies_of_the_readme(
    tmp_path: Path, artefact_dir: Path, kind: EmulatorKind, tier: str
) -> None:
    """On EC2 from zero instances and back, and from a device without its frames.

    It ends at the first reply that differs from the sample's label.
    """
    _, _, shown = (CHECKOUT / "README.md").read_text().partition("`make demo` ends with\n")
    shown, _, _ = shown.partition("DEMO OK")
    environ = os.environ | {"FACEREC_MODEL__DIR": str(artefact_dir)}
    # For a nucleus pip would download packages; `test_edge_component` has one with packages of its own.
    of_device = ["--no-nucleus"] if tier == "edge" else []
    demo = run(
        "local",
        "demo",
        "--emulator",
        str(kind),
        "--tier",
        tier,
        *of_device,
        "--state",
        str(tmp_path / "state"),
        environ=environ,
        timeout_seconds=150,
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    assert demo.stdout.splitlines()[-1] == "DEMO OK"
    assert ("back at zero instances" in demo.stdout) == (tier != "serverless")
    assert replies(demo.stdout) == replies(shown) != []
    sizes = re.search(r"of frames with (\d+) bytes, messages with (\d+) left the device", demo.stdout)
    assert (sizes is not None) == (tier == "edge")
    assert sizes is None or 0 < int(sizes[2]) < int(sizes[1]) / 2
