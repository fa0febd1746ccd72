"""`facerec model migrate`, `compare` and `switch`: a change of the model while the service runs."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from facerec import bootstrap
from facerec.commands.reembedding import Reembedded, reembed
from facerec.commands.terminal import json_option, print_columns, progress_bar, tracked
from facerec.comparison import ModelThresholds
from facerec.echo import echo, echo_json
from facerec.engine import registry
from facerec.engine.loading import check_licence, load_artefact
from facerec.engine.migration import Migration, begun, read_migration, write_migration
from facerec.erasure_records import ReaderKind
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.damaged import usable
from facerec.gallery.merges import follow_replacements
from facerec.gallery.migrating import paired, pending
from facerec.gallery.model_comparison import ComparedModel, ModelComparison, compare_models
from facerec.gallery.readers import HEARTBEAT
from facerec.ports import DamagedTemplate
from facerec.settings import Settings
from facerec.text import counted
from model.artefact import Artefact, ArtefactError
from model.packs.catalogue import PACKS

_WORKERS_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_SHOWN_CHANGES = 20
_SHOWN_PEOPLE = 5
_DONE = frozenset({"rebuilt", "present"})

window_option = click.option(
    "--window",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Photos that are with the workers at once; more of them delay uploads.",
)


@click.command("migrate")
@click.option("--to", "pack", type=click.Choice(list(PACKS)), help="The pack of the new model, which is built here.")
@click.option("--model-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Or its artefact.")
@window_option
@json_option
def migrate(pack: str | None, model_dir: Path | None, window: int, *, as_json: bool) -> None:
    """Embed the gallery with another model, through the workers, while they serve the present one; then compare both.

    Nothing changes for clients until `facerec model switch`. The photo of each template goes through the request
    queue, and the new template is stored beside the old one. After an interruption, run it again: it skips what is
    done. The exit status is 1 while there are templates that the new model cannot use; the report names them.

    \b
    Examples:
      facerec model migrate --to open
      FACEREC_MODEL__LICENCE=research facerec model migrate --to accurate --window 32
      facerec model switch          # when the comparison is good
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if (pack is None) == (model_dir is None):
        raise click.UsageError("Give either --to or --model-dir.")
    settings = Settings.load()
    target = _built(settings, pack) if pack else _loaded(settings, model_dir)
    migration = _begin(settings, target)
    if not as_json:
        echo(f"From {migration.serving}, which the workers serve, to {migration.other}")
    reports = _embed(settings, migration.serving, migration.other, window, as_json=as_json)
    comparisons = _compared(settings, migration)
    if as_json:
        documents = [comparison.as_json() for comparison in comparisons]
        counts = Counter(report.status for report in reports)
        not_done = [asdict(report) for report in reports if report.status not in _DONE]
        echo_json(
            {"migration": migration.model_dump(mode="json"), "counts": counts, "not_done": not_done}
            | {"comparisons": documents}
        )
    else:
        _print_comparisons(comparisons)
        echo("`facerec model switch` lets the workers serve the new model")
    if any(report.status not in _DONE for report in reports):
        raise SystemExit(1)


@click.command("compare")
@json_option
def compare(*, as_json: bool) -> None:
    """Compare the two models of the migration on the enrolled people.

    Each enrolled face is searched among all others, with its own template left out, by both models with their
    thresholds. `agreement` is the share of faces that get the same answer.
    """
    settings = Settings.load()
    comparisons = _compared(settings, _existing(settings))
    if as_json:
        echo_json([comparison.as_json() for comparison in comparisons])
    else:
        _print_comparisons(comparisons)


@click.command("switch")
@click.option("--back", is_flag=True, help="From the new model back to the old one.")
@click.option("--force", is_flag=True, help="Also if people would have no template that the model can use.")
@window_option
def switch(window: int, *, back: bool, force: bool) -> None:
    """Let the workers serve the new model of the migration, or with --back the old one again.

    It embeds what was enrolled meanwhile, changes the record that all workers follow, waits until each of them serves
    the model, and embeds what was enrolled during the wait. No request fails: a worker opens the model beside the
    present one, and changes between two tasks. Until all have changed, either model may answer.
    """
    settings = Settings.load()
    migration = _existing(settings)
    if back != (migration.serving == migration.to_model):
        now = f"the workers serve {migration.serving} already"
        raise FacerecError(f"{now}: nothing to take back" if back else f"{now}: --back goes back to {migration.other}")
    source, target = migration.serving, migration.other
    _embed(settings, source, target, window, as_json=False)
    lost = _lost(settings, source, target)
    if lost and not force:
        more = len(lost) - _SHOWN_PEOPLE
        shown = ", ".join(lost[:_SHOWN_PEOPLE]) + (f" and {more} more" if more > 0 else "")
        raise FacerecError(
            f"{len(lost)} of the people would no longer be recognised: {shown}; "
            "enrol another photo of each, or use --force"
        )
    objects = bootstrap.object_store(settings)
    write_migration(objects, settings.model_bucket, migration.switched(datetime.now(UTC)))
    registry.set_current(objects, settings.model_bucket, target)
    echo(f"The workers change to {target}")
    _await_workers(settings, target)
    _embed(settings, source, target, window, as_json=False)
    echo(f"{target} is in use. On machines that enrol: `facerec model pull`")


def _built(settings: Settings, name: str) -> Artefact:
    from model.packs.build import build

    pack = PACKS[name]
    check_licence(settings, pack.name, pack.licence)
    cache = settings.model.cache_dir
    with _artefact_errors():
        return build(pack, output=cache / "packs" / pack.name, cache=cache)


def _loaded(settings: Settings, directory: Path | None) -> Artefact:
    with _artefact_errors():
        artefact = Artefact.load(directory or settings.model.dir)
    check_licence(settings, artefact.pack, artefact.licence)
    return artefact


@contextmanager
def _artefact_errors() -> Iterator[None]:
    try:
        yield
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc


def _begin(settings: Settings, target: Artefact) -> Migration:
    """Push both models and write the record; returns it."""
    objects, bucket = bootstrap.object_store(settings), settings.model_bucket
    record = read_migration(objects, bucket)
    if record is not None:
        serving = record.serving
    else:
        own = load_artefact(settings)  # what the workers have: no migration has changed it yet
        serving = own.model_id
        registry.push(objects, bucket, own, current=False)
    if target.model_id == serving:
        raise FacerecError(f"the workers serve {serving} already")
    with _artefact_errors():
        registry.push(objects, bucket, target, current=False)
    migration = begun(record, serving, target.model_id, datetime.now(UTC))
    if migration != record:
        write_migration(objects, bucket, migration)
    return migration


def _existing(settings: Settings) -> Migration:
    migration = read_migration(bootstrap.object_store(settings), settings.model_bucket)
    if migration is None:
        raise FacerecError("there is no migration: `facerec model migrate --to PACK` begins one")
    return migration


def _embed(settings: Settings, from_model: str, to_model: str, window: int, *, as_json: bool) -> list[Reembedded]:
    """Let the workers embed what has no template of the model yet, in all collections; prints what failed."""
    templates, records = bootstrap.template_store(settings), bootstrap.person_records(settings)
    store, queue = bootstrap.object_store(settings), bootstrap.task_queue(settings)
    reports: list[Reembedded] = []
    began, total = time.monotonic(), 0
    with progress_bar(as_json=True) as progress:
        for collection in templates.collections():
            left = pending(templates, collection, from_model, to_model)
            total += left.total
            task = progress.add_task(collection, total=left.total, completed=left.total - len(left.without_twin))
            for report in reembed(settings, store, queue, left.without_twin, to_model, window):
                reports.append(report)
                progress.advance(task)
            pairs = paired(templates.entries(collection), from_model, to_model)
            follow_replacements(
                templates, records, collection, {old.template_id: new.template_id for old, new in pairs}
            )
    if as_json:
        return reports
    for report in reports:
        if report.status not in _DONE:
            echo(
                f"{report.status}  {report.identity}  {report.source} ({report.collection}): {report.detail}", err=True
            )
    done = sum(report.status in _DONE for report in reports)
    if reports or total:
        seconds = time.monotonic() - began
        echo(f"{counted(done, 'template')} embedded in {seconds:.0f} s; {total - len(reports)} of {total} were there")
    return reports


def _lost(settings: Settings, source: str, target: str) -> list[str]:
    templates = bootstrap.template_store(settings)
    return [
        f"{person!r} of {collection}"
        for collection in templates.collections()
        for person in pending(templates, collection, source, target).lost
    ]


def _await_workers(settings: Settings, model_id: str) -> None:
    """Wait until each worker that reports has a gallery of this model alone."""
    readers, deadline = bootstrap.gallery_readers(settings), time.monotonic() + _WORKERS_SECONDS
    with progress_bar(as_json=True) as progress:
        progress.add_task("waiting for the workers", total=None)
        while True:
            recent = datetime.now(UTC) - timedelta(seconds=1.5 * HEARTBEAT.total_seconds())
            behind = [
                report
                for report in readers.reports()
                if report.kind is ReaderKind.PROCESS and report.reported_at > recent and report.model_id != model_id
            ]
            if not behind:
                return
            if time.monotonic() >= deadline:
                where = ", ".join(sorted({report.where for report in behind}))
                echo(
                    f"These workers have not changed within {_WORKERS_SECONDS:.0f} s, see their logs: {where}", err=True
                )
                return
            time.sleep(_LOOK_SECONDS)


def _compared(settings: Settings, migration: Migration) -> list[ModelComparison]:
    templates = bootstrap.template_store(settings)
    models = [_artefact(settings, model_id) for model_id in migration.models]
    comparisons = []
    for collection in templates.collections():
        damaged: list[DamagedTemplate] = []
        stored = tracked(
            templates.templates(collection, damaged), f"reading {collection}", total=templates.count(collection) or None
        )
        found = usable(stored, damaged, {model.model_id: model.dimension for model in models})
        pairs = paired(found, migration.from_model, migration.to_model)
        old, new = (
            ComparedModel(
                model.model_id,
                ModelThresholds(model.tail, model.threshold, settings.gallery.false_names),
                None if (own := templates.threshold(collection, model.model_id)) is None else own.value,
            )
            for model in models
        )
        comparisons.append(compare_models(collection, pairs, old, new))
    return comparisons


def _artefact(settings: Settings, model_id: str) -> Artefact:
    directory = settings.model.cache_dir / "models" / model_id
    with _artefact_errors():
        return registry.pull(bootstrap.object_store(settings), settings.model_bucket, directory, model_id)


def _print_comparisons(comparisons: list[ModelComparison]) -> None:
    header = ("collection", "model", "threshold", "right", "unknown", "false matches", "rank 1", "agreement")
    rows: list[tuple[str, ...]] = [header]
    for comparison in comparisons:
        agreement = "-" if comparison.agreement is None else f"{comparison.agreement:.2%}"
        rows += [
            (
                comparison.collection,
                figures.model_id,
                f"{figures.threshold:.3f}",
                f"{figures.right} of {comparison.findable}",
                str(figures.unknown),
                str(figures.false_matches),
                "-" if figures.rank_1 is None else f"{figures.rank_1:.2%}",
                agreement,
            )
            for figures in (comparison.old, comparison.new)
        ]
    print_columns(rows)
    for comparison in comparisons:
        for change in comparison.changes[:_SHOWN_CHANGES]:
            echo(
                f"{comparison.collection}: {change.identity} ({change.source}): {change.old_answer} "
                f"{change.old_similarity:.2f} becomes {change.new_answer} {change.new_similarity:.2f}"
            )
        if len(comparison.changes) > _SHOWN_CHANGES:
            more = len(comparison.changes) - _SHOWN_CHANGES
            echo(f"{comparison.collection}: {more} more; `facerec model compare --json` lists all")
