"""The guards of an application with plain top-level package names."""

import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("facerec", "tasks", "autoscale", "model")


@pytest.mark.parametrize("package", OURS)
def test_no_other_distribution_owns_our_package_names(package: str) -> None:
    """A dependency that installs a package called `model` or `tasks` would shadow ours."""
    assert set(packages_distributions().get(package, [])) <= {"facerec"}


def test_it_cannot_be_uploaded_by_mistake() -> None:
    """The registry refuses every distribution with a `Private ::` classifier."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    assert "Private :: Do Not Upload" in setup["metadata"]["classifiers"]


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`celery -A facerec` and the command line start from here."""
    script = (
        "import sys, facerec, facerec.cli;"
        "heavy = {'boto3', 'celery', 'cv2', 'flask', 'numpy', 'onnxruntime', 'openvino', 'pydantic', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    """Relative links in Markdown files name files of the repository."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_a_missing_extra_is_named_in_one_line() -> None:
    """A web-only install has no numpy, and need not show a traceback for it."""
    script = (
        "import sys; sys.modules['celery'] = None; sys.argv = ['facerec', 'worker'];"
        "from facerec.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("facerec: celery is not installed")
    assert len(run.stderr.splitlines()) == 1


def test_there_is_no_tasks_module_at_the_root() -> None:
    """Celery's autodiscovery would prefer it to the package."""
    assert not (ROOT / "tasks.py").exists()
