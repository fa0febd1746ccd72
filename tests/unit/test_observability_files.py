"""The dashboard, the alerts and the page about them: they speak of metrics that exist, and of all of them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from tests.support.metrics import exported, series

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "deploy" / "observability"
PAGE = ROOT / "docs" / "observability.md"

OPERATORS = frozenset({"and", "bool", "offset", "or", "unless"})
OF_PROMETHEUS = frozenset({"up"})
OF_THE_SCRAPE = frozenset({"instance", "job", "le"})

Tiers = dict[str, list[Metric]]


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Tiers:
    """What each tier exports."""
    return exported(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def labels(tiers: Tiers) -> dict[str, set[str]]:
    """The labels of every series that Prometheus may know, by its name."""
    found: dict[str, set[str]] = {}
    for families in tiers.values():
        for family in families:
            own = set(getattr(family, "_labelnames", ())).union(*(sample.labels for sample in family.samples))
            for name in series(family):
                found.setdefault(name, set()).update(own)
    # Its first series appear with the first request.
    found["facerec_web_request_seconds_bucket"] |= {"method", "route", "status"}
    found["facerec_web_request_seconds_count"] |= {"method", "route", "status"}
    return found


def metric_names(expression: str) -> set[str]:
    """The metrics that a PromQL expression names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)) - OPERATORS


def selected(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that is matched on it."""
    for metric, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            yield metric, label


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    loaded: dict[str, Any] = json.loads((FILES / "grafana-dashboard.json").read_text())
    return loaded


def alerts() -> list[dict[str, Any]]:
    """Every rule."""
    groups = yaml.safe_load((FILES / "prometheus-alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard and the alerts."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return shown + [rule["expr"] for rule in alerts()]


def test_names_are_found_in_expressions() -> None:
    """Functions, labels, durations and operators are no metrics."""
    expression = (
        'sum by (a, le) (rate(m_total{x="by (m2) {"}[5m])) / on (b) up and time() - m3 > 14.4 * 0.05 or absent(m4 == 1)'
    )
    assert metric_names(expression) == {"m_total", "up", "m3", "m4"}
    assert list(selected('m{a="1",b!~"2"}')) == [("m", "a"), ("m", "b")]


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_is_exported(expression: str, labels: dict[str, set[str]]) -> None:
    """A metric or a label of another name gives an empty panel, and an alert that never fires."""
    names = metric_names(expression)
    assert names
    assert names - OF_PROMETHEUS <= labels.keys()
    unknown = {
        (name, label)
        for name, label in selected(expression)
        if name not in OF_PROMETHEUS and label not in labels[name] | OF_THE_SCRAPE
    }
    assert unknown == set()


def test_dashboard_has_an_id_and_a_data_source() -> None:
    """The data source is chosen at the import."""
    board = dashboard()
    assert board["uid"] == "facerec"
    assert board["schemaVersion"] >= 39
    (variable,) = board["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"]
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references)


def test_no_panel_overlaps_another() -> None:
    """Grafana would move them."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        apart_across = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_down = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_across or apart_down, (a, b)


def test_every_alert_says_what_is_wrong_and_is_documented() -> None:
    """It has a severity and a sentence; the page says what to do."""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    page = PAGE.read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in page


def test_every_alert_fires_in_a_test_of_promtool() -> None:
    """A rule that never fires would fail promtool's tests."""
    tests = yaml.safe_load((FILES / "prometheus-alerts.test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in alerts()}


def test_the_page_tells_of_every_metric_and_of_no_other(tiers: Tiers) -> None:
    """By the names that are typed into Prometheus; of a histogram the part before `_bucket`."""
    page = PAGE.read_text()
    told = set(re.findall(r"`((?:facerec|process)_[a-z_]+)", page))
    known = {
        family.name if family.type == "histogram" else name
        for families in tiers.values()
        for family in families
        for name in series(family)
    }
    assert told == known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "prometheus-alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "prometheus-alerts.test.yml"),
    ],
    ids=lambda arguments: arguments[-1],
)
def test_prometheus_accepts_the_files(arguments: tuple[str, ...]) -> None:
    """And the alerts fire when they should."""
    done = subprocess.run(["promtool", *arguments], cwd=FILES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
