"""`facerec evaluate --open-set`: enrolled people and strangers, at the threshold that the service would use."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.evaluation_set import embed_tracked, percent
from facerec.engine.loading import load_artefact
from facerec.settings import Settings
from facerec.text import for_people
from model.tail import identification_threshold

if TYPE_CHECKING:
    from facerec.accuracy.open_set import Expectation, IdentificationRates, OpenSetReport
    from facerec.accuracy.scoring import Embedding, Skip

_INTERVALS = (
    "95 %: Wilson's score interval, widened to a bootstrap over people where they have several probes; the photos that "
    "are enrolled are taken as given"
)
_PREDICTION = (
    "predicted from the model's tail and the similarities of the known probes, as if comparisons were independent; "
    "where they are not, fewer strangers get a name. Other photos than the tail's may have another tail"
)


def evaluate(
    folder: Path,
    strangers: Path | None,
    left_out: float,
    seed: int,
    thresholds: Sequence[float],
    engine_name: str | None,
    *,
    as_json: bool,
) -> None:
    """Embed the photos, enrol and probe, print the report; raises `NoOpenSet`."""
    from facerec.accuracy.open_set import assess_open_set, divide, people_in, search, strangers_in
    from facerec.accuracy.scoring import Skip

    settings = Settings.load()
    artefact = load_artefact(settings)
    people, unknown = people_in(folder), {} if strangers is None else strangers_in(strangers)
    photos = [photo for group in (people, unknown) for each in group.values() for photo in each]
    found, engine = embed_tracked(photos, Path(), settings, artefact, engine_name)
    usable = {photo: value for photo, value in found.items() if not isinstance(value, Skip)}
    chosen = divide(_only(people, usable), _only(unknown, usable), left_out, seed)
    false_names = settings.gallery.false_names
    threshold_for = partial(identification_threshold, artefact.tail, artefact.threshold, false_names)
    report = assess_open_set(search(chosen, usable), artefact.tail, threshold_for, thresholds)
    if as_json:
        rest = {
            "model_id": engine.model_id,
            "engine": engine.name,
            "precision": engine.precision,
            "false_names": false_names,
            "seed": seed,
            "photos": len(found),
            "skipped_photos": {photo: str(value) for photo, value in found.items() if isinstance(value, Skip)},
        }
        click.echo(json.dumps(rest | report.to_json(), indent=2, ensure_ascii=False))
        return
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl(
        [
            ("Photos", _photos(found)),
            ("Model", f"{engine.model_id}, {engine.name} {engine.precision}"),
            *_rows(report, false_names),
        ],
        col_max=24,
    )
    click.echo(formatter.getvalue(), nl=False)


def _only(people: Mapping[str, Sequence[str]], usable: "Mapping[str, Embedding]") -> dict[str, list[str]]:
    """The people with the photos that have an embedding."""
    kept = {name: [photo for photo in photos if photo in usable] for name, photos in people.items()}
    return {name: photos for name, photos in kept.items() if photos}


def _photos(found: "Mapping[str, Embedding | Skip]") -> str:
    from facerec.accuracy.scoring import Skip

    reasons = Counter(str(value) for value in found.values() if isinstance(value, Skip))
    told = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(reasons.items()))
    return f"{len(found)}, skipped {reasons.total()}" + (f" ({told})" if told else "")


def _rows(report: "OpenSetReport", false_names: float) -> list[tuple[str, str]]:
    ours, *others = report.at
    expected_here, *expected = report.expected
    strangers = f"{report.stranger_probes} probes of {report.strangers} strangers"
    return [
        (
            "Enrolled",
            f"{report.identities} people by one photo each; {report.known_probes} probes of them, {strangers}",
        ),
        ("Nearest is right", percent(report.rank_one)),
        (f"At {ours.threshold:.4f}", f"the model's threshold {for_people(report.identities, false_names)}"),
        *_rates(ours),
        ("  by the tail", _expectation(expected_here)),
        *(row for rates in others for row in ((f"At {rates.threshold:.4f}", "as given"), *_rates(rates))),
        *((f"With {size.identities} people", f"at {size.threshold:.4f}: {_expectation(size)}") for size in expected),
        ("Intervals", _INTERVALS),
        ("More people", _PREDICTION),
    ]


def _rates(rates: "IdentificationRates") -> list[tuple[str, str]]:
    return [
        ("  right name (TPIR)", percent(rates.right_name)),
        ("  wrong name", percent(rates.wrong_name)),
        ("  no name", percent(rates.no_name)),
        ("  strangers (FPIR)", f"{percent(rates.strangers_named)} get a name"),
    ]


def _expectation(expected: "Expectation") -> str:
    return (
        f"right name {expected.right_name:.1%}, wrong {expected.wrong_name:.2%}, strangers named "
        f"{expected.strangers_named:.2%}{' (threshold extrapolated)' if expected.extrapolated else ''}"
    )
