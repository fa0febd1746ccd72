"""The guards of an application with plain top-level package names."""

import configparser
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = ("facerec", "tasks", "autoscale", "model")
INSTALLER = {"pip", "setuptools"}
"""They come with the virtual environment, and are no business of the application's."""


@pytest.mark.parametrize("package", OURS)
def test_no_other_distribution_owns_our_package_names(package: str) -> None:
    """A dependency that installs a package called `model` or `tasks` would shadow ours."""
    assert set(packages_distributions().get(package, [])) <= {"facerec"}


def test_tests_never_import_benchmarks() -> None:
    """Their common harness is in `tests/support`."""
    importing = re.compile(r"^\s*(from|import) benchmarks\b", re.MULTILINE)
    assert [path for path in (ROOT / "tests").rglob("*.py") if importing.search(path.read_text())] == []


def test_package_cannot_be_uploaded_by_mistake() -> None:
    """The registry refuses every distribution with a `Private ::` classifier."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    assert "Private :: Do Not Upload" in setup["metadata"]["classifiers"]


def test_every_package_of_an_extra_has_a_tested_version() -> None:
    """Without a constraint pip takes the newest version, which was never tested."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pending = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    wanted = [Requirement(line) for lines in pending for line in lines.split("\n") if line]
    constraints = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    tested = {canonicalize_name(Requirement(line).name) for line in constraints}
    assert _names_brought_by(wanted) - INSTALLER - tested == set()


def _names_brought_by(wanted: list[Requirement]) -> set[NormalizedName]:
    """The packages that the requirements lead to on this machine, if they are installed."""
    seen: set[tuple[NormalizedName, str]] = set()
    while wanted:
        one = wanted.pop()
        for extra in ("", *one.extras):
            place = (canonicalize_name(one.name), extra)
            if place not in seen:
                seen.add(place)
                wanted += [
                    need for need in _needs(one.name) if need.marker is None or need.marker.evaluate({"extra": extra})
                ]
    return {name for name, _ in seen}


def _needs(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:  # an extra that is not installed here
        return []


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`celery -A facerec` and the command line start from here."""
    script = (
        "import sys, facerec, facerec.cli;"
        "heavy = {'boto3', 'celery', 'cv2', 'flask', 'numpy', 'onnxruntime', 'openvino', 'pydantic', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_link_of_the_documentation_has_a_target() -> None:
    """Relative links in Markdown files name files of the repository."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_missing_extra_is_named_in_one_line() -> None:
    """An install for the web tier alone has no numpy, and needs no traceback for it."""
    script = (
        "import sys; sys.modules['celery'] = None; sys.argv = ['facerec', 'worker'];"
        "from facerec.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("facerec: celery is not installed")
    assert len(run.stderr.splitlines()) == 1


_OF_THE_EXTRAS = ("PIL", "celery", "cv2", "flask", "kombu", "matplotlib", "numpy", "prometheus_client")


def _printed_by_the_core(*arguments: str) -> str:
    """What `facerec …` prints where no extra is installed, and without our autoscaler, whose tier has one."""
    script = (
        "import sys;"
        f"sys.modules.update(dict.fromkeys({('autoscale', *_OF_THE_EXTRAS)!r}));"
        f"sys.argv = ['facerec', *{arguments!r}];"
        "from facerec.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("config",), "FACEREC_PREFIX=facerec"),
        (("dlq", "--help"), "redrive"),
        (("dlq", "purge", "--help"), "--older-than"),
        (("keys", "--help"), "rotate"),
        (("policies", "web", "--account", "123456789012"), "sqs:SendMessage"),
        (("provision", "--help"), "launch template"),
        (("trace", "--help"), "--logs"),
    ],
)
def test_operators_commands_run_on_the_core_install(arguments: tuple[str, ...], says: str) -> None:
    """A machine that only looks after the system needs no tier's extra for them, nor the autoscaler."""
    assert says in _printed_by_the_core(*arguments)


def test_request_is_traced_on_the_core_install(tmp_path: Path) -> None:
    """The modules that the command loads at run time are there, too."""
    log, request_id = tmp_path / "web.log", "0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55"
    record = {"event": "upload", "timestamp": "2026-01-01T00:00:00Z", "process": "web", "status": 200}
    log.write_text(json.dumps(record | {"request_id": request_id}) + "\n")
    assert "answered with 200" in _printed_by_the_core("trace", request_id, "--no-s3", "--logs", str(log))


def test_there_is_no_tasks_module_at_the_root() -> None:
    """Celery's autodiscovery would prefer it to the package."""
    assert not (ROOT / "tasks.py").exists()
