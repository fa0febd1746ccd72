"""`facerec evaluate`: how well the model in use tells people apart, on labelled pairs or on people and strangers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.evaluation_set import interval, percent, score_pairs, used_and_skipped
from facerec.commands.terminal import PictureFile, engine_option
from facerec.engine.loading import load_artefact
from facerec.errors import FacerecError
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.accuracy.report import AccuracyReport, Measured, OperatingPoint
    from model.evaluation import FoldAccuracy


@click.command("evaluate")
@click.option(
    "--pairs",
    "pairs_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns left,right,same (and fold), or LFW's pairs.txt.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the photos are that the pairs name.",
)
@click.option(
    "--open-set",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead: a folder per person. One photo of each person is enrolled, the others are probes.",
)
@click.option(
    "--strangers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --open-set: photos of strangers, each a person, or a folder per stranger.",
)
@click.option(
    "--left-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="With --open-set: the share of people with several photos that are not enrolled and come as strangers.",
)
@click.option("--seed", default=0, show_default=True, help="With --open-set: decides who and what is drawn by lot.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1),
    help="With --open-set: another threshold to compare with; may be given again.",
)
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
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
    as_json: bool,  # noqa: FBT001 - click passes by name
    plot: Path | None,
) -> None:
    """Measure the model in use, on labelled pairs of photos or on people of whom some are enrolled.

    Each photo is detected, cropped and embedded once, as a worker does it; its primary face counts. What is told of a
    false match rate (FMR) is marked as weak where fewer than 10/FMR pairs of different people are there: it rests on
    few false matches, or on none. Intervals hold with 95 % confidence; those of TAR take the threshold as given.

    With --open-set one photo of each person is enrolled, drawn by lot. The others are probes, and so are strangers:
    people with one photo, --strangers, and --left-out of the rest. Printed are the shares of known probes with the
    right name (TPIR), a wrong one and none, and of strangers with a name (FPIR), at the service's threshold for so many
    people (FACEREC_GALLERY__FALSE_NAMES), and what the model's impostor tail predicts for more people.

    \b
    Examples:
      facerec evaluate --pairs pairs.csv --folder photos/ --plot roc.png
      facerec evaluate --pairs lfw/pairs.txt --folder lfw/ --json     # ten folds, as published figures are
      facerec evaluate --open-set people/ --strangers visitors/ --threshold 0.5
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if open_set is not None:
        if pairs_file or folder or plot:
            raise click.UsageError("--open-set takes none of --pairs, --folder and --plot.")
        from facerec.commands.evaluate_open_set import evaluate

        evaluate(open_set, strangers, left_out, seed, thresholds, engine, as_json=as_json)
    elif strangers or left_out or thresholds:
        raise click.UsageError("--strangers, --left-out and --threshold belong to --open-set.")
    elif pairs_file and folder:
        _evaluate_pairs(pairs_file, folder, engine, plot, as_json=as_json)
    else:
        raise click.UsageError("Give --pairs and --folder, or --open-set.")


def _evaluate_pairs(pairs_file: Path, folder: Path, engine: str | None, plot: Path | None, *, as_json: bool) -> None:
    from facerec.accuracy.report import assess

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
        rest = {
            "model_id": used_engine.model_id,
            "engine": used_engine.name,
            "precision": used_engine.precision,
            "photos": scored.photos,
            "skipped_pairs": scored.skipped_pairs,
            "skipped_photos": {photo: str(reason) for photo, reason in scored.skipped_photos.items()},
        }
        click.echo(json.dumps(rest | report.to_json(), indent=2, ensure_ascii=False))
        return
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl(
        [
            ("Pairs", used_and_skipped(scored)),
            ("Model", f"{used_engine.model_id}, {used_engine.name} {used_engine.precision}"),
            *_rows(report),
        ],
        col_max=20,
    )
    click.echo(formatter.getvalue(), nl=False)
    if plot is not None:
        click.echo(f"Plot: {plot}", err=True)


def _rows(report: "AccuracyReport") -> list[tuple[str, str]]:
    from model.evaluation import pairs_needed

    if report.auc is None or report.eer is None:
        missing = "different people" if report.genuine_pairs else "the same person"
        rows = [("AUC, EER", f"not measurable: no pair of {missing}")]
    else:
        rows = [("AUC", _number(report.auc)), ("EER", percent(report.eer))]
    for target, point in report.at_fmr.items():
        told = "not measurable: no pair of different people" if point is None else _point(point)
        if point is not None and report.weak(target):
            told += f"; weak: {report.impostor_pairs} impostor pairs, {pairs_needed(target)} are needed"
        rows.append((f"At FMR {target:g}", told))
    rows.append(("For verification", _point(report.at_threshold)))
    if report.folds is not None:
        rows.append(("Accuracy", _folds(report.folds)))
    return [*rows, ("Intervals", report.intervals)]


def _folds(folds: "FoldAccuracy") -> str:
    return (
        f"{folds.mean:.2%} ± {folds.standard_error:.2%} (standard error) over {folds.folds} folds, each with the "
        f"threshold that is best on the others (mean {folds.threshold:.4f})"
    )


def _point(point: "OperatingPoint") -> str:
    tar = "no pair of the same person" if point.tar is None else f"TAR {percent(point.tar)}"
    fmr = "no pair of different people" if point.fmr is None else f"FMR {percent(point.fmr)}"
    return f"threshold {point.threshold:.4f}: {tar}, {fmr}"


def _number(figure: "Measured") -> str:
    return f"{figure.value:.5f}{interval(figure.interval, '.5f')}"
