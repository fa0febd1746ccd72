"""`facerec evaluate`: the accuracy of the model in use, on labelled pairs of photos or on people and strangers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facerec.commands.terminal import FILE, FOLDER, PictureFile, engine_option, json_option, print_facts, tracked
from facerec.echo import echo, echo_json
from facerec.engine.loading import analyser, load_artefact, open_engine
from facerec.errors import FacerecError
from facerec.settings import Settings
from facerec.text import for_people
from model.artefact import Artefact
from model.tail import identification_threshold

if TYPE_CHECKING:
    from facerec.accuracy.open_set import Expectation, IdentificationRates, OpenSetReport
    from facerec.accuracy.pairs import AccuracyReport, Embedding, Measured, OperatingPoint, Scored, Skip
    from model.engines import Engine
    from model.evaluation import Interval

_INTERVALS = (
    "95 %: Wilson's score interval, widened to a bootstrap over people where they have several probes; the enrolled "
    "photos are taken as given"
)
_PREDICTION = (
    "predicted from the model's tail and the similarities of the known probes, as if comparisons were independent; "
    "if they are not, fewer strangers get a name. Other photos than the tail's may have another tail"
)


@click.command("evaluate")
@click.option(
    "--pairs", "pairs_file", type=FILE, help="CSV with the columns left,right,same (and fold), or LFW's pairs.txt."
)
@click.option("--folder", type=FOLDER, help="The folder of the photos that the pairs name.")
@click.option(
    "--open-set",
    type=FOLDER,
    help="Instead: a folder per person. One photo of each person is enrolled, the others are probes.",
)
@click.option(
    "--strangers",
    type=FOLDER,
    help="With --open-set: photos of strangers, each a person, or a folder per stranger.",
)
@click.option(
    "--left-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="With --open-set: the share of people with several photos that are strangers instead of enrolled.",
)
@click.option("--seed", default=0, show_default=True, help="With --open-set: the seed of the random choices.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1),
    help="With --open-set: another threshold to compare with; may be given again.",
)
@engine_option
@json_option
@click.option("--plot", type=PictureFile(), help="Draw ROC and distributions as a PNG.")
def command(
    pairs_file: Path | None,
    folder: Path | None,
    open_set: Path | None,
    strangers: Path | None,
    left_out: float,
    seed: int,
    thresholds: tuple[float, ...],
    engine: str | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure the model in use, on labelled pairs of photos or on people of whom some are enrolled.

    Each photo is detected, cropped and embedded once, as in a worker; its primary face counts. A figure at a false
    match rate (FMR) is marked as weak if there are fewer than 10/FMR pairs of different people: it rests on few false
    matches, or on none. Intervals hold with 95 % confidence; those of TAR take the threshold as given.

    With --open-set one photo of each person, chosen at random, is enrolled. The others are probes, and so are
    strangers: people with one photo, --strangers, and --left-out of the rest. Printed are the shares of known probes
    with the right name (TPIR), a wrong one and none, and of strangers with a name (FPIR). They hold at the service's
    threshold for so many people (FACEREC_GALLERY__FALSE_NAMES). The model's impostor tail predicts them for more
    people.

    \b
    Examples:
      facerec evaluate --pairs pairs.csv --folder photos/ --plot roc.png
      facerec evaluate --pairs lfw/pairs.txt --folder lfw/ --json     # ten folds, as published figures are
      facerec evaluate --open-set people/ --strangers visitors/ --threshold 0.5
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if open_set is not None:
        if pairs_file or folder or plot:
            raise click.UsageError("--open-set takes none of --pairs, --folder and --plot.")
        _evaluate_open_set(open_set, strangers, left_out, seed, thresholds, engine, as_json=as_json)
    elif strangers or left_out or thresholds:
        raise click.UsageError("--strangers, --left-out and --threshold belong to --open-set.")
    elif pairs_file and folder:
        _evaluate_pairs(pairs_file, folder, engine, plot, as_json=as_json)
    else:
        raise click.UsageError("Give --pairs and --folder, or --open-set.")


def score_pairs(
    pairs_file: Path, folder: Path, settings: Settings, artefact: Artefact, engine_name: str | None
) -> "tuple[Scored, Engine]":
    """Read the list, embed its photos as in a worker, compare; returns the trials and the engine in use.

    Raises `InvalidPairs` before the engine is opened, and `ConfigurationError` if that fails.
    """
    from facerec.accuracy.pairs import photos_of, read_pairs, score

    pairs = read_pairs(pairs_file)
    found, engine = _embed(photos_of(pairs), folder, settings, artefact, engine_name)
    return score(pairs, found), engine


def used_and_skipped(scored: "Scored") -> str:
    """`5 used (3 same, 2 different), 2 skipped for 1 of 6 photos (1 no face)`."""
    trials = scored.trials
    text = f"{len(trials.cosines)} used ({len(trials.genuine)} same, {len(trials.impostor)} different)"
    if not scored.skipped_pairs:
        return f"{text}, none skipped; {scored.photos} photos"
    skipped = f"{len(scored.skipped_photos)} of {scored.photos} photos ({_reasons(scored.skipped_photos.values())})"
    return f"{text}, {scored.skipped_pairs} skipped for {skipped}"


def _embed(
    photos: Iterable[str], folder: Path, settings: Settings, artefact: Artefact, engine_name: str | None
) -> "tuple[dict[str, Embedding | Skip], Engine]":
    from facerec.accuracy.pairs import embed_photos

    engine = open_engine(settings, artefact, engine_name)
    return embed_photos(tracked(photos, "embedding photos"), folder, analyser(settings, engine)), engine


def _evaluate_pairs(pairs_file: Path, folder: Path, engine: str | None, plot: Path | None, *, as_json: bool) -> None:
    from facerec.accuracy.pairs import assess

    settings = Settings.load()
    artefact = load_artefact(settings)
    scored, used_engine = score_pairs(pairs_file, folder, settings, artefact, engine)
    if not len(scored.trials.cosines):
        raise FacerecError(f"no pair can be used: {used_and_skipped(scored)}; is --folder where the photos are?")
    report = assess(scored.trials, scored.folds, artefact.threshold)
    if plot is not None:
        from facerec.commands.evaluation_plot import draw

        title = f"{artefact.model_id}, {used_engine.name} {used_engine.precision}"
        try:
            draw(scored.trials, artefact.threshold, title).save(plot, "PNG")
        except OSError as exc:
            raise click.FileError(str(plot), exc.strerror or str(exc)) from exc
    if as_json:
        rest = {"photos": scored.photos, "skipped_pairs": scored.skipped_pairs}
        _print_json(used_engine, rest | _skipped(scored.skipped_photos) | report.to_json())
        return
    print_facts([("Pairs", used_and_skipped(scored)), _model(used_engine), *_pairs_rows(report)], name_width=20)
    if plot is not None:
        echo(f"Plot: {plot}", err=True)


def _pairs_rows(report: "AccuracyReport") -> list[tuple[str, str]]:
    from model.evaluation import pairs_needed

    if report.auc is None or report.eer is None:
        missing = "different people" if report.genuine_pairs else "the same person"
        rows = [("AUC, EER", f"not measurable: no pair of {missing}")]
    else:
        auc = f"{report.auc.value:.5f}{_interval(report.auc.interval, '.5f')}"
        rows = [("AUC", auc), ("EER", _percent(report.eer))]
    for target, point in report.at_fmr.items():
        text = "not measurable: no pair of different people" if point is None else _point(point)
        if point is not None and report.weak(target):
            text += f"; weak: {report.impostor_pairs} impostor pairs, {pairs_needed(target)} are needed"
        rows.append((f"At FMR {target:g}", text))
    rows.append(("For verification", _point(report.at_threshold)))
    if (folds := report.folds) is not None:
        accuracy = f"{folds.mean:.2%} ± {folds.standard_error:.2%} (standard error) over {folds.folds} folds"
        best = f"each with the threshold that is best on the others (mean {folds.threshold:.4f})"
        rows.append(("Accuracy", f"{accuracy}, {best}"))
    return [*rows, ("Intervals", report.intervals)]


def _point(point: "OperatingPoint") -> str:
    tar = "no pair of the same person" if point.tar is None else f"TAR {_percent(point.tar)}"
    fmr = "no pair of different people" if point.fmr is None else f"FMR {_percent(point.fmr)}"
    return f"threshold {point.threshold:.4f}: {tar}, {fmr}"


def _evaluate_open_set(
    folder: Path,
    strangers: Path | None,
    left_out: float,
    seed: int,
    thresholds: Sequence[float],
    engine_name: str | None,
    *,
    as_json: bool,
) -> None:
    from facerec.accuracy.open_set import assess_open_set, divide, people_in, search, strangers_in
    from facerec.accuracy.pairs import Skip

    settings = Settings.load()
    artefact = load_artefact(settings)
    people, unknown = people_in(folder), {} if strangers is None else strangers_in(strangers)
    photos = [photo for group in (people, unknown) for each in group.values() for photo in each]
    found, engine = _embed(photos, Path(), settings, artefact, engine_name)
    skipped = {photo: value for photo, value in found.items() if isinstance(value, Skip)}
    usable = {photo: value for photo, value in found.items() if not isinstance(value, Skip)}
    chosen = divide(_only(people, usable), _only(unknown, usable), left_out, seed)
    false_names = settings.gallery.false_names
    threshold_for = partial(identification_threshold, artefact.tail, artefact.threshold, false_names)
    report = assess_open_set(search(chosen, usable), artefact.tail, threshold_for, thresholds)
    if as_json:
        rest = {"false_names": false_names, "seed": seed, "photos": len(found)}
        _print_json(engine, rest | _skipped(skipped) | report.to_json())
        return
    read = f"{len(found)}, skipped {len(skipped)}" + (f" ({_reasons(skipped.values())})" if skipped else "")
    print_facts([("Photos", read), _model(engine), *_open_set_rows(report, false_names)], name_width=24)


def _only(people: Mapping[str, Sequence[str]], usable: "Mapping[str, Embedding]") -> dict[str, list[str]]:
    """The people with the photos that have an embedding."""
    kept = {name: [photo for photo in photos if photo in usable] for name, photos in people.items()}
    return {name: photos for name, photos in kept.items() if photos}


def _open_set_rows(report: "OpenSetReport", false_names: float) -> list[tuple[str, str]]:
    ours, *others = report.at
    expected_here, *expected = report.expected
    probes = f"{report.known_probes} probes of them, {report.stranger_probes} probes of {report.strangers} strangers"
    return [
        ("Enrolled", f"{report.identities} people by one photo each; {probes}"),
        ("Nearest is right", _percent(report.rank_one)),
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
        ("  right name (TPIR)", _percent(rates.right_name)),
        ("  wrong name", _percent(rates.wrong_name)),
        ("  no name", _percent(rates.no_name)),
        ("  strangers (FPIR)", f"{_percent(rates.strangers_named)} get a name"),
    ]


def _expectation(expected: "Expectation") -> str:
    return (
        f"right name {expected.right_name:.1%}, wrong {expected.wrong_name:.2%}, strangers named "
        f"{expected.strangers_named:.2%}{' (threshold extrapolated)' if expected.extrapolated else ''}"
    )


def _print_json(engine: "Engine", rest: Mapping[str, Any]) -> None:
    used = {"model_id": engine.model_id, "engine": engine.name, "precision": engine.precision}
    echo_json(used | dict(rest))


def _skipped(photos: "Mapping[str, Skip]") -> dict[str, Any]:
    return {"skipped_photos": {photo: str(reason) for photo, reason in photos.items()}}


def _model(engine: "Engine") -> tuple[str, str]:
    return "Model", f"{engine.model_id}, {engine.name} {engine.precision}"


def _reasons(skips: "Iterable[Skip]") -> str:
    """`1 missing, 2 no face`."""
    counts = Counter(str(reason).replace("_", " ") for reason in skips)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def _percent(figure: "Measured") -> str:
    """`98.667% [98.1%, 99.2%]`."""
    return f"{figure.value:.3%}{_interval(figure.interval, '.3%')}"


def _interval(found: "Interval | None", form: str) -> str:
    return " (too few errors for an interval)" if found is None else f" [{found.low:{form}}, {found.high:{form}}]"
