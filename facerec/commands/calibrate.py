"""`facerec calibrate`: a collection's own threshold for a false match rate."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.damaged import print_damaged
from facerec.commands.evaluate import score_pairs, used_and_skipped
from facerec.commands.open_gallery import OpenGallery, open_gallery
from facerec.commands.terminal import FILE, FOLDER, collection_option, engine_option, json_option, print_facts
from facerec.echo import echo, echo_json
from facerec.text import counted, for_people
from model.tail import identification_threshold

if TYPE_CHECKING:
    from facerec.accuracy.calibration import Calibration
    from facerec.accuracy.pairs import Scored
    from facerec.ports import CollectionThreshold


@click.command("calibrate")
@click.option(
    "--target-fmr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The share of comparisons of different people that may match, such as 1e-3.",
)
@click.option(
    "--false-names",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Instead: the share of strangers that may get a name, such as 0.01; it is divided by the number of people.",
)
@collection_option
@click.option(
    "--pairs",
    "pairs_file",
    type=FILE,
    help="An evaluation set to use with the gallery's own templates, as for `facerec evaluate`.",
)
@click.option("--folder", type=FOLDER, help="The folder of the photos that the pairs name.")
@engine_option
@click.option("--dry-run", is_flag=True, help="Find the threshold and store nothing.")
@click.option("--reset", is_flag=True, help="Remove the collection's threshold; the model's table applies again.")
@json_option
def command(
    target_fmr: float | None,
    false_names: float | None,
    collection: str,
    pairs_file: Path | None,
    folder: Path | None,
    engine: str | None,
    *,
    dry_run: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Find the threshold at which different people match no more often than --target-fmr, and store it.

    A collection needs no threshold of its own: the model has a table with the threshold for each number of people
    (FACEREC_GALLERY__FALSE_NAMES). A calibration takes its place, and does not follow the collection as it grows:
    repeat it then.

    It uses all pairs of different people in the collection, and in the evaluation set if one is given. It refuses a
    rate with fewer than 10/FMR such pairs: 1e-3 takes 10 000 pairs, or 142 people with one photo each; --false-names
    0.01 takes 2 001 people. The threshold holds for this collection and the model in use; a request's own threshold
    comes first. Running workers apply it within 5 seconds.

    \b
    Examples:
      facerec calibrate --target-fmr 1e-3
      facerec calibrate --false-names 0.01
      facerec calibrate --target-fmr 1e-4 --collection staff --pairs pairs.csv --folder photos/ --dry-run
      facerec calibrate --reset
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.accuracy.calibration import calibrate

    if (pairs_file is None) != (folder is None):
        raise click.UsageError("Give --pairs and --folder together.")
    given = [rate for rate in (target_fmr, false_names) if rate is not None]
    if len(given) + reset != 1:
        raise click.UsageError("Give one of --target-fmr, --false-names and --reset.")
    gallery = open_gallery(collection)
    if not given:
        _reset(gallery, dry_run=dry_run)
        return
    scored = None
    if pairs_file is not None and folder is not None:
        scored, _ = score_pairs(pairs_file, folder, gallery.settings, gallery.model, engine)
    store, model_id = gallery.templates, gallery.model.model_id
    evaluation = None if scored is None else scored.trials.impostor
    before = store.threshold(gallery.collection, model_id)
    per_search = false_names is not None
    found = calibrate(store, gallery.collection, model_id, given[0], per_search=per_search, evaluation=evaluation)
    print_damaged(gallery.collection, found.damaged)
    if not dry_run:
        store.set_threshold(gallery.collection, model_id, found.threshold)
    if as_json:
        echo_json(_json_object(gallery, found, before, scored, stored=not dry_run))
        return
    _print(gallery, found, before, scored)
    echo("Nothing stored (--dry-run)." if dry_run else "Stored; running workers apply it within 5 seconds.")


def _reset(gallery: OpenGallery, *, dry_run: bool) -> None:
    store, collection, model_id = gallery.templates, gallery.collection, gallery.model.model_id
    before = store.threshold(collection, model_id)
    people = len({each.identity for each in store.templates(collection) if each.model_id == model_id})
    models = _of_the_model(gallery, people)
    if before is None:
        echo(f"Collection {collection} has no threshold of its own; {models} applies.")
        return
    if not dry_run:
        store.set_threshold(collection, model_id, None)
    would = "would apply" if dry_run else "applies"
    echo(f"Threshold {before.value} of collection {collection}: {models} {would} again.")


def _of_the_model(gallery: OpenGallery, people: int) -> str:
    """`the model's 0.6350 for 332 people at 1 %`."""
    false_names = gallery.settings.gallery.false_names
    found = identification_threshold(gallery.model.tail, gallery.model.threshold, false_names, people)
    return f"the model's {found.value:.4f} {for_people(people, false_names)}"


def _print(
    gallery: OpenGallery, found: "Calibration", before: "CollectionThreshold | None", scored: "Scored | None"
) -> None:
    threshold = found.threshold
    models = _of_the_model(gallery, found.identities)
    in_force = models if before is None else f"{before.value}, from {before.source}"
    rows = [
        ("Collection", f"{gallery.collection}, model {gallery.model.model_id}"),
        ("Threshold", f"{threshold.value:.4f} (so far {in_force})"),
        ("False matches", f"{threshold.fmr:.3g} of the pairs, at most {threshold.target_fmr:g} asked for"),
        ("Impostor pairs", threshold.source),
    ]
    if scored is not None:
        rows += [("Evaluation set", used_and_skipped(scored)), *_true_accepts(scored, threshold.value)]
    if found.identities:
        people = f"{found.strangers_taken:.1%} of them, with {found.identities} people to compare with"
        rows.append(("Strangers taken for someone", people))
    if found.lookalikes is not None:
        one, other = found.lookalikes.one, found.lookalikes.other
        pair = f"{one.identity!r} ({one.source}) and {other.identity!r} ({other.source})"
        rows.append(("Most alike", f"{found.lookalikes.cosine:.4f}: {pair}; are these two people?"))
    print_facts(rows)
    if found.other_models:
        echo(f"Left out, of another model: {counted(found.other_models, 'template')}", err=True)


def _true_accepts(scored: "Scored", threshold: float) -> list[tuple[str, str]]:
    from facerec.accuracy.pairs import operating_point

    tar = operating_point(scored.trials, threshold).tar
    if tar is None or tar.interval is None:
        return []
    share = f"{tar.value:.2%} [{tar.interval.low:.2%}, {tar.interval.high:.2%}]"
    return [("True accepts", f"{share} of the evaluation set's genuine pairs")]


def _json_object(
    gallery: OpenGallery,
    found: "Calibration",
    before: "CollectionThreshold | None",
    scored: "Scored | None",
    *,
    stored: bool,
) -> dict[str, object]:
    def fields(threshold: "CollectionThreshold | None") -> dict[str, object] | None:
        if threshold is None:
            return None
        return asdict(threshold) | {"calibrated_at": threshold.calibrated_at.isoformat()}

    return {
        "collection": gallery.collection,
        "model_id": gallery.model.model_id,
        "threshold": fields(found.threshold),
        "before": fields(before),
        "stored": stored,
        "identities": found.identities,
        "gallery_pairs": found.gallery_pairs,
        "evaluation_pairs": found.evaluation_pairs,
        "skipped_pairs": 0 if scored is None else scored.skipped_pairs,
        "templates_of_other_models": found.other_models,
        "strangers_taken": found.strangers_taken,
    }
