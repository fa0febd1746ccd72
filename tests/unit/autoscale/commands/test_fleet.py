"""What `facerec fleet` and `facerec autoscale --once` show: tables, JSON and the picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from autoscale.commands.autoscale import describe_round
from autoscale.commands.fleet import FleetStatus, history_table, status_table
from autoscale.commands.plots import Episode, Series, episodes, plot_history
from autoscale.observation import FleetByPhase, Instance, Limits, Observation, Phase, Power, Unreadable, phase
from autoscale.policy import ActionKind, Decision, Hold
from autoscale.reconcile_result import Action, ReconcileResult, ranges
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.messages import WorkerReport, WorkerState
from facerec.text import is_text
from tests.fakes.fleet import a_record

NOW = 1_000_000.0
LIMITS = Limits(boot_seconds=300, silence_seconds=60, drain_seconds=120)
WORKER = WorkerReport("i-1", WorkerState.READY, NOW - 90, NOW - 1, 0, NOW - 65, 42, 0.0, 0)
SERVING = Instance(1, "i-1", Power.RUNNING, NOW - 100, WORKER)
CLAIMED = Instance(2, None, Power.PENDING, NOW - 2)
STOPPED = Instance(3, "i-3", Power.STOPPED, NOW - 8000)


def seen(*instances: Instance) -> FleetStatus:
    """A status in which everything could be read."""
    rows = tuple((instance, phase(instance, LIMITS, NOW)) for instance in instances)
    return FleetStatus(NOW, QueueDepth(5, 2), rows, "host/01234567-89ab", a_record(NOW - 3))


def printed(what: RenderableType) -> str:
    """What a terminal shows."""
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_status_tells_of_an_unreadable_report() -> None:
    """In the table and in JSON; the other instances are shown as usual."""
    status = seen(SERVING, replace(SERVING, number=2, instance_id="i-2", report=None, report_unreadable=True))
    rows = printed(status_table(status)).splitlines()
    assert [line.rstrip().endswith("report unreadable") for line in rows[-2:]] == [False, True]
    assert [row["report_unreadable"] for row in status.as_json()["instances"]] == [False, True]


def test_status_shows_every_instance() -> None:
    """With its phase, its age, and its worker's report."""
    lines = printed(status_table(seen(SERVING, CLAIMED, STOPPED))).splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()[:1].isdigit()}
    assert " ".join(rows["1"].split()) == "1 i-1 serving running 1 min 40 s 0 1 min 05 s 42"
    assert " ".join(rows["2"].split()) == "2 being launched booting pending 2 s - - -"
    assert " ".join(rows["3"].split()) == "3 i-3 stopped stopped 2 h 13 min - - -"
    text = "\n".join(lines)
    assert "5 visible, 2 in flight, 0 delayed" in text
    assert "1 booting, 1 serving, 1 stopped" in text
    assert "host (01234567) holds the lease" in text
    assert "1 needed: 3 open; 1 instance is enough (3 s ago)" in text


def test_status_of_a_stopped_fleet_says_no_instance_runs() -> None:
    """A warm pool is no running fleet."""
    assert "no instance runs, 1 stopped" in printed(status_table(seen(STOPPED)))


def test_status_shows_unreadable_parts_in_their_place() -> None:
    """Never as 0; the other parts are shown. The reason is no markup."""
    status = replace(seen(SERVING), queue=Unreadable("no [bold]answer"), lease_holder=None, last=None)
    text = printed(status_table(status))
    assert "unreadable: no [bold]answer" in text
    assert "no process holds the lease" in text
    assert "nothing recorded for 1 h 00 min" in text
    assert not status.complete
    plain = json.loads(json.dumps(status.as_json()))
    assert plain["queue"] == {"unreadable": "no [bold]answer"}
    assert plain["instances"][0]["tasks_done"] == 42
    assert plain["instances"][0]["phase"] == "serving"
    assert plain["last"] is None


def test_history_lists_every_record() -> None:
    """With its actions and their reason."""
    text = printed(
        history_table([a_record(NOW, visible=7), replace(a_record(NOW + 1, reason="9 open"), actions="launch 1-3")])
    )
    assert "01-12 13:46:40" in text
    assert "launch 1-3: 9 open" in text


def test_reasons_from_outside_stay_in_their_line() -> None:
    """An error sentence may quote what another service said; a record may be written by another program."""
    hostile = "no\x1b[2J\x9b1m\nfleet    all is well\u2028fleet"
    status = replace(seen(SERVING), queue=Unreadable(hostile), lease_holder=f"{hostile}/1")
    texts = [
        printed(status_table(status)),
        printed(history_table([replace(a_record(NOW, visible=7), reason=hostile, actions=hostile)])),
        describe_round(ReconcileResult(NOW, leading=True, observation=None, decision=Hold(hostile))),
    ]
    for text in texts:
        assert all(is_text(character) or character == "\n" for character in text), text
        assert sum("all is well" in line for line in text.splitlines()) >= 1
        assert not any(line.startswith("fleet    all") for line in text.splitlines())


def test_describe_round_writes_lines_for_people() -> None:
    """The output of `--once` and `--dry-run`."""
    done = ReconcileResult(
        NOW,
        leading=True,
        observation=Observation(QueueDepth(5, 2, 1), FleetByPhase.of((SERVING, CLAIMED), LIMITS, NOW)),
        decision=Decision(4, 2, "7 open"),
        actions=(Action(ActionKind.LAUNCH, (3, 4)), Action(ActionKind.TERMINATE, (9,), "no answer")),
    )
    assert describe_round(done).splitlines() == [
        "queue    5 visible, 2 in flight, 1 delayed",
        "fleet    1 booting, 1 serving",
        "needed   4: 7 open",
        "did      launch 3-4; terminate 9 failed",
    ]
    unread = Observation(Unreadable("no answer"), Unreadable("nothing"))
    assert describe_round(
        ReconcileResult(NOW, leading=True, observation=unread, decision=Hold("why"))
    ).splitlines() == [
        "queue    unreadable: no answer",
        "fleet    unreadable: nothing",
        "holds    why",
    ]


@pytest.mark.parametrize(("numbers", "words"), [((), ""), ((2,), "2"), ((7, 3, 1, 2), "1-3, 7")])
def test_ranges_shorten_runs_of_numbers(numbers: Sequence[int], words: str) -> None:
    """A run is written as its ends."""
    assert ranges(numbers) == words


def acting(at: float, actions: str) -> RoundRecord:
    """A record of actions."""
    return replace(a_record(at), actions=actions)


def test_close_actions_are_one_episode() -> None:
    """Their numbers are united by kind; the reason is the first one's."""
    acted = [acting(0, "drain 1-2"), acting(1, "drain 4; stop 1 failed"), acting(2, "stop 1"), acting(9, "launch 1")]
    first, second = episodes(acted, apart_seconds=5)
    assert first == Episode(acted[:3])
    assert str(first) == ("00:00:00 to 00:00:02  drain 1-2, 4; stop failed 1; stop 1: 3 open; 1 instance is enough")
    assert str(second).startswith("00:00:09  launch 1: ")


def test_series_has_a_gap_when_records_stop_while_something_ran() -> None:
    """At zero instances the line continues at zero."""
    gap = Series([a_record(0), a_record(100)], until=110)
    assert [math.isnan(value) for value in gap.values(lambda record: record.serving)] == [False, True, False, False]
    nothing = a_record(0, visible=0, in_flight=0, needed=0, serving=0)
    quiet = Series([nothing, replace(nothing, at=100)], until=110)
    assert quiet.values(lambda record: record.serving) == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 2, 60])
def test_plot_history_writes_a_png(tmp_path: Path, count: int) -> None:
    """For one record, a few and many."""
    records = [acting(NOW + 10 * index, f"launch {index % 15 + 1}" if index % 9 else "") for index in range(count)]
    plot_history(records, tmp_path / "fleet.png", until=NOW + 10 * count)
    assert (tmp_path / "fleet.png").read_bytes().startswith(b"\x89PNG")


def test_every_phase_has_a_style() -> None:
    """A new phase needs a colour."""
    for name in Phase:
        status = replace(seen(), instances=((SERVING, name),))
        assert name in printed(status_table(status))
