"""Dashboards for Grafana and alerts for Prometheus, made from the lists below: ``python helm/observing.py``.

A panel's title is the question that it answers. An alert's name is a heading of the operator guide's runbooks.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).with_name("astrocloud") / "files" / "observing"
RUNBOOKS: Final = "docs/operator/runbooks.md"

_SPAWN: Final = "jupyterhub_server_spawn_duration_seconds"
_GOOD: Final = 'status="success"'
_TRIED: Final = "max(astrocloud_canary_ended_timestamp_seconds) > 0"
"""When the last trial session ended; nothing where there was none, which a gauge that was never set tells as 0."""
_TRIAL: Final = (
    f"min(astrocloud_canary_good and astrocloud_canary_ended_timestamp_seconds == on() group_left() ({_TRIED}))"
)
"""How the last one went: of several replicas the one that had the last turn knows."""
_BAD: Final = f'increase({_SPAWN}_count{{status!="success"}}[30m])'


def _quantile(share: float, metric: str, within: str, *, by: str = "", where: str = "") -> str:
    """Return the query of what `share` of the observations of a histogram do not exceed."""
    labels = f"{{{where}}}" if where else ""
    kept = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({metric}_bucket{labels}[{within}])))"


@dataclass(frozen=True)
class Panel:
    """One question, and the queries that answer it: legend -> PromQL."""

    question: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"


@dataclass(frozen=True)
class Alert:
    """A condition that somebody has to do something about."""

    name: str
    expr: str
    lasts: str
    severity: str
    says: str


DASHBOARDS: Final[dict[str, tuple[str, tuple[Panel, ...]]]] = {
    "people": (
        "Astrocloud: people and their servers",
        (
            Panel(
                "Can a person who comes now work?",
                {"trial session": _TRIAL},
                kind="stat",
            ),
            Panel("How many servers run?", {"servers": "sum(jupyterhub_running_servers)"}),
            Panel(
                "How many people were active?",
                {"in the last {{period}}": "max by (period) (jupyterhub_active_users)"},
            ),
            Panel(
                "How long does a person wait for a server?",
                {
                    "half of them at most": _quantile(0.5, _SPAWN, "15m", where=_GOOD),
                    "95 of 100 at most": _quantile(0.95, _SPAWN, "15m", where=_GOOD),
                },
                "s",
            ),
            Panel(
                "How many starts of servers fail?",
                {"{{status}}": f"sum by (status) (increase({_SPAWN}_count[1h]))"},
            ),
            Panel(
                "How many sign-ins are refused, and why?",
                {"{{outcome}}": "sum by (outcome) (increase(astrocloud_sign_ins_total[1h]))"},
            ),
            Panel(
                "Where does the trial session spend its time?",
                {"{{step}}": "max by (step) (astrocloud_canary_step_seconds)"},
                "s",
            ),
        ),
    ),
    "platform": (
        "Astrocloud: parts of the platform",
        (
            Panel(
                "How many requests does each service answer?",
                {"{{service}}": "sum by (service) (rate(astrocloud_requests_total[5m]))"},
                "reqps",
            ),
            Panel(
                "Which service answers with errors of its own?",
                {"{{service}}": 'sum by (service) (rate(astrocloud_requests_total{status=~"5.."}[5m]))'},
                "reqps",
            ),
            Panel(
                "How long do people wait for a page?",
                {"{{service}}, 95 of 100 at most": _quantile(0.95, "astrocloud_request_seconds", "5m", by="service")},
                "s",
            ),
            Panel(
                "Is the hub busy with itself?",
                {"longest pause of its loop": _quantile(0.99, "jupyterhub_event_loop_interval_seconds", "5m")},
                "s",
            ),
            Panel(
                "How long does the hub take to look at all routes of the proxy?",
                {"95 of 100 at most": _quantile(0.95, "jupyterhub_check_routes_duration_seconds", "15m")},
                "s",
            ),
            Panel(
                "How much memory does each part use?",
                {"{{job}} {{pod}}": "sum by (job, pod) (process_resident_memory_bytes)"},
                "bytes",
            ),
            Panel(
                "How much processor does each part use?",
                {"{{job}} {{pod}}": "sum by (job, pod) (rate(process_cpu_seconds_total[5m]))"},
            ),
        ),
    ),
    "files": (
        "Astrocloud: people's files",
        (
            Panel(
                "How full is the file tree?",
                {"used": "1 - min(astrocloud_tree_free_bytes / astrocloud_tree_size_bytes)"},
                "percentunit",
                "gauge",
            ),
            Panel(
                "When will it be full, as it went in the last week?",
                {"free in seven days": "predict_linear(astrocloud_tree_free_bytes[7d], 7 * 86400)"},
                "bytes",
            ),
            Panel(
                "How many more files fit?",
                {"files": "min(astrocloud_tree_files_free)"},
            ),
            Panel("Does the file tree answer?", {"answers": "min(astrocloud_tree_answers)"}, kind="stat"),
            Panel(
                "On which nodes can GlusterFS be used?",
                {"{{instance}}": "min by (instance) (astrocloud_mount_usable)"},
            ),
            Panel(
                "What do clients do by VOSpace?",
                {"{{method}}": 'sum by (method) (rate(astrocloud_requests_total{service="vospace"}[5m]))'},
                "reqps",
            ),
            Panel(
                "What does VOSpace refuse?",
                {
                    "{{status}}": (
                        'sum by (status) (rate(astrocloud_requests_total{service="vospace",status=~"[45].."}[5m]))'
                    )
                },
                "reqps",
            ),
        ),
    ),
}

ALERTS: Final = (
    Alert(
        "TrialSessionFails",
        f"{_TRIAL} == 0",
        "20m",
        "critical",
        "A person who comes now cannot work: the trial session failed twice.",
    ),
    Alert(
        "TrialSessionMissing",
        f"time() - ({_TRIED}) > 7200",
        "10m",
        "warning",
        "No trial session has ended for two hours.",
    ),
    Alert(
        "ServersDoNotStart",
        f"sum({_BAD}) > 3 and sum({_BAD}) > 0.2 * sum(increase({_SPAWN}_count[30m]))",
        "5m",
        "critical",
        "More than a fifth of the servers that people started in the last half hour did not come.",
    ),
    Alert(
        "ServersStartSlowly",
        _quantile(0.95, _SPAWN, "30m", where=_GOOD) + " > 60",
        "15m",
        "warning",
        "Of 20 people one waits more than a minute for a server.",
    ),
    Alert(
        "ServiceAnswersWithErrors",
        'sum by (service) (rate(astrocloud_requests_total{status=~"5.."}[10m])) > 0.05 * '
        "sum by (service) (rate(astrocloud_requests_total[10m]))",
        "10m",
        "critical",
        "One in twenty answers of {{ $labels.service }} is an error of its own.",
    ),
    Alert(
        "HubIsBusyWithItself",
        _quantile(0.99, "jupyterhub_event_loop_interval_seconds", "10m") + " > 1",
        "15m",
        "warning",
        "The hub's loop pauses for more than a second: every page of it waits.",
    ),
    Alert(
        "FileTreeDoesNotAnswer",
        "min(astrocloud_tree_answers) == 0",
        "3m",
        "critical",
        "The file system with people's files does not answer.",
    ),
    Alert(
        "FileTreeIsAwayFromANode",
        "min by (instance) (astrocloud_mount_usable) == 0",
        "3m",
        "critical",
        "GlusterFS cannot be used on the node of {{ $labels.instance }}.",
    ),
    Alert(
        "FileTreeNearlyFull",
        "min(astrocloud_tree_free_bytes / astrocloud_tree_size_bytes) < 0.05",
        "10m",
        "warning",
        "Less than a twentieth of the file tree is free.",
    ),
    Alert(
        "FileTreeRunsOutOfFiles",
        "min(astrocloud_tree_files_free / (astrocloud_tree_files > 0)) < 0.05",
        "10m",
        "warning",
        "Less than a twentieth of the files that the file tree can hold are left.",
    ),
    Alert(
        "SignInsAreRefused",
        'sum(increase(astrocloud_sign_ins_total{outcome!="good"}[15m])) > 100',
        "5m",
        "warning",
        "More than a hundred sign-ins were refused in a quarter of an hour: somebody may be trying passwords.",
    ),
)

_COLUMNS: Final = 2
_WIDTH: Final = 12
_HEIGHT: Final = 8


def dashboard(name: str) -> dict[str, Any]:
    """Return the dashboard `name` as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"astrocloud-{name}",
        "title": title,
        "tags": ["astrocloud"],
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "schemaVersion": 39,
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.question,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source, "expr": expr, "legendFormat": legend}
            for place, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def rules() -> list[dict[str, Any]]:
    """Return the alerts as Prometheus reads them."""
    return [
        {
            "alert": f"Astrocloud{alert.name}",
            "expr": alert.expr,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.says, "runbook": f"{RUNBOOKS}, {alert.name}"},
        }
        for alert in ALERTS
    ]


def files() -> dict[str, str]:
    """Return name -> text of every file that is made."""
    made: dict[str, Any] = {f"{name}.json": dashboard(name) for name in DASHBOARDS}
    made["alerts.json"] = {"groups": [{"name": "astrocloud", "rules": rules()}]}
    return {name: json.dumps(document, indent=1) + "\n" for name, document in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")
