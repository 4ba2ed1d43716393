"""Dashboards and alerts ask for figures that are there, in queries that Prometheus understands."""

import json
import re
import runpy

import jupyterhub.metrics
import promql_parser
import pytest
from prometheus_client import REGISTRY

from astrocloud.portal import trials
from astrocloud.vospace import metrics
from helm import observing
from tests.repository.files import REPOSITORY

QUERIES = {
    **{
        f"{name}: {panel.question} {legend}": query
        for name, (_, panels) in observing.DASHBOARDS.items()
        for panel in panels
        for legend, query in panel.queries.items()
    },
    **{alert.name: alert.expr for alert in observing.ALERTS},
}


def mount_metrics() -> set[str]:
    """Return the metrics of what mounts GlusterFS on a node: a program of one file, which no package holds."""
    told = runpy.run_path(str(REPOSITORY / "images/glusterfs/mount_volume.py"))["State"]().metrics()
    return set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))


def known() -> set[str]:
    """Return every metric that the hub, a service or a node's mount has."""
    assert jupyterhub.metrics
    assert trials
    assert metrics
    import astrocloud.core.web
    import astrocloud.passport.pages_sign_in  # noqa: F401 - makes its metrics

    names = mount_metrics()
    for collector in list(REGISTRY._collector_to_names.values()):
        names.update(collector)
    return names


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_queries_are_promql_on_metrics_that_exist(query: str) -> None:
    promql_parser.parse(query)
    asked = set(re.findall(r"\b(?:astrocloud|jupyterhub|process)_[a-z_]+", query))
    assert asked
    assert asked <= known()


def test_files_are_current() -> None:
    for name, text in observing.files().items():
        assert (observing.FOLDER / name).read_text(encoding="utf-8") == text, "run: python helm/observing.py"
    assert {path.name for path in observing.FOLDER.iterdir()} == observing.files().keys()


def test_a_panel_is_titled_by_its_question() -> None:
    for name in observing.DASHBOARDS:
        for panel in observing.dashboard(name)["panels"]:
            assert panel["title"].endswith("?")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    text = (REPOSITORY / observing.RUNBOOKS).read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == [alert.name for alert in observing.ALERTS]


def test_dashboards_name_no_data_source_of_ours() -> None:
    for name in observing.DASHBOARDS:
        assert json.dumps(observing.dashboard(name)).count("${source}") >= 2
