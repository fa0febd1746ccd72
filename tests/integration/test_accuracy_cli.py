"""`facerec evaluate` with the real model, and `facerec calibrate` against the emulator and a worker's gallery."""

import csv
import itertools
import json
import shutil
from pathlib import Path

from facerec import bootstrap
from facerec.gallery.cache import GalleryCache
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from tests.fakes.templates import make_template
from tests.support.artefacts import write_artefact
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import run

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_evaluate_separates_the_examples_at_the_default_threshold(
    emulator: EmulatedAws, artefact_dir: Path, tmp_path: Path
) -> None:
    """Every pair of the samples; the photo without a face is skipped and counted."""
    people = {path.relative_to(EXAMPLES).as_posix(): path.parent.name for path in EXAMPLES.glob("gallery/*/*")}
    with (EXAMPLES / "expected.csv").open(encoding="utf-8", newline="") as rows:
        people |= {f"probes/{row['file']}": row["name"] or row["file"] for row in csv.DictReader(rows)}
    pairs = tmp_path / "pairs.csv"
    with pairs.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("left", "right", "same"))
        writer.writerows(
            (one, other, int(people[one] == people[other])) for one, other in itertools.combinations(people, 2)
        )
    environ = emulator.environ | {"FACEREC_MODEL__DIR": str(artefact_dir)}
    plot = tmp_path / "plot.png"
    done = run(
        "evaluate", "--pairs", str(pairs), "--folder", str(EXAMPLES), "--json", "--plot", str(plot), environ=environ
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["skipped_photos"].values()) == ["no_face"]
    assert report["genuine_pairs"] >= 2
    assert (report["at_threshold"]["tar"]["value"], report["at_threshold"]["fmr"]["value"]) == (1, 0)
    assert report["auc"]["value"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_evaluate_recognises_the_examples_as_an_open_set(
    emulator: EmulatedAws, artefact_dir: Path, tmp_path: Path
) -> None:
    """Enrolled by one photo, both people get their names on the other; a stranger and a rocket get none."""
    for person, probe in (("Barack Obama", "image_01"), ("Joe Biden", "image_03")):
        (tmp_path / "people" / person).mkdir(parents=True)
        for photo in (*(EXAMPLES / "gallery" / person).iterdir(), EXAMPLES / "probes" / f"{probe}.jpg"):
            shutil.copy(photo, tmp_path / "people" / person)
    (tmp_path / "strangers").mkdir()
    for probe in ("image_02", "image_04"):
        shutil.copy(EXAMPLES / "probes" / f"{probe}.jpg", tmp_path / "strangers")
    environ = emulator.environ | {"FACEREC_MODEL__DIR": str(artefact_dir)}
    folders = ("--open-set", str(tmp_path / "people"), "--strangers", str(tmp_path / "strangers"))
    done = run("evaluate", *folders, "--json", environ=environ)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["identities"], report["strangers"]) == (2, 1)
    assert list(report["skipped_photos"].values()) == ["no_face"]
    (rates,) = report["at"]
    assert (rates["right_name"]["value"], rates["strangers_named"]["value"]) == (1, 0)


def test_calibration_reaches_a_running_gallery(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> None:
    """In another process, within five seconds."""
    artefact = write_artefact(tmp_path / "model")
    environ = environ_of(fresh, emulator.environ) | {"FACEREC_MODEL__DIR": str(tmp_path / "model")}
    store = bootstrap.template_store(fresh)
    for number in range(46):
        store.add(make_template(number, f"person {number}", model_id=artefact.model_id))
    gallery = GalleryCache(store, artefact.model_id, fresh.gallery.refresh_seconds, dimension=artefact.dimension)
    assert gallery.threshold("default") is None
    gallery.start()
    try:
        done = run("calibrate", "--target-fmr", "1e-2", "--json", environ=environ)
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)["threshold"]["value"]
        assert poll_until(lambda: gallery.threshold("default") == value, 5)
    finally:
        gallery.stop()
    refused = run("calibrate", "--target-fmr", "1e-3", environ=environ)
    assert refused.returncode == 1
    assert "needs 10000 impostor pairs and there are 1035" in refused.stderr
