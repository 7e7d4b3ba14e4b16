"""The Grafana dashboard and the alerts ask only for what is there.

tests/cluster/test_metrics.py asks the same of a live page of Ray's metrics agent.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels

from cluster.metrics import COUNTERS, GAUGES, ROW_SECONDS, STAGE
from tests.promql import OF_THE_SCRAPE, asked, of_legend, queries

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "reelmap.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
OURS = {f"ray_{name}": set(labels) for name, (_, labels) in (COUNTERS | GAUGES).items()} | {
    f"ray_{ROW_SECONDS}_bucket": {*STAGE, "le"}
}
RAYS = set(re.findall(r"\bray_\w+", Path(default_dashboard_panels.__file__).read_text()))


def every_query() -> list[tuple[str, str, str]]:
    alerts = [(rule["alert"], rule["expr"], "") for group in ALERTS["groups"] for rule in group["rules"]]
    return [*queries(DASHBOARD), *alerts]


@pytest.mark.parametrize(("title", "query", "legend"), every_query())
def test_a_query_asks_for_metrics_and_labels_that_exist(title: str, query: str, legend: str) -> None:
    metrics = asked(query)
    assert metrics
    for metric, labels in metrics.items():
        if metric.startswith("ray_reelmap_"):
            assert labels | of_legend(legend) <= OURS[metric] | OF_THE_SCRAPE, title
        else:
            assert metric in RAYS, title


def test_every_metric_of_a_run_is_shown() -> None:
    shown = {metric for _, query, _ in queries(DASHBOARD) for metric in asked(query)}
    assert set(OURS) - shown == set()


def test_panels_have_a_place_of_their_own_and_a_source_that_can_be_chosen() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {
        target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
    } == {"${datasource}"}
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([query for _, query, _ in queries(DASHBOARD)])))
    assert used - {"__rate_interval"} <= names


def test_the_reader_of_queries_finds_what_is_asked_for() -> None:
    query = 'sum by (stage) (rate(a_total{run=~"$run", x!="}"}[5m])) / on () group_left () sum(b) > 0.1'
    assert asked(query) == {"a_total": {"run", "x", "stage"}, "b": {"stage"}}
    with pytest.raises(ValueError, match="no function"):
        asked("deriv(a)")
