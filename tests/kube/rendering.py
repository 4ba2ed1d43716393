"""What the chart renders to, read as Helm and Kubernetes read it."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.kube.cluster.programs import CHART_PROGRAMS, build, program

CHART = Path(__file__).parents[2] / "helm" / "astrocloud"
VALUES = Path(__file__).parent / "values"
VALUE_FILES = sorted(VALUES.glob("*.yaml"))
TLS = ("--set", "tls.internal=true")
NO_TLS = ("--set", "tls.internal=false")


@cache
def chart_programs() -> None:
    """Build what the chart is tried with, where that is not there."""
    build(CHART_PROGRAMS, say=print)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    chart_programs()
    return subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)


def render(
    *arguments: str | Path, chart: Path = CHART, release: str = "astrocloud", namespace: str = "platform"
) -> str:
    done = helm("template", release, chart, "--namespace", namespace, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


class OnceLoader(yaml.SafeLoader):
    """Reads as Helm and Kubernetes do, where PyYAML reads otherwise.

    It refuses a key that is written twice, of which PyYAML would take the last; and to it ``y`` and ``n`` are truth
    values, and ``1e3`` is a number.
    """

    bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}  # noqa: RUF012 - as in the class above it


def _mapping(loader: OnceLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"written twice: {twice}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


OnceLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))


OnceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def objects(*arguments: str | Path, **of: Any) -> list[dict[str, Any]]:
    """Return what the chart renders to; `of` is the chart, the release's name or its namespace, as for `render`."""
    rendered = render(*arguments, **of)
    return [document for document in yaml.load_all(rendered, OnceLoader) if document]


def pods(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return kind/name -> spec of every pod, however it comes to be."""
    found = {}
    for document in made:
        spec = document.get("spec", {})
        spec = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec")
        if spec and "containers" in spec:
            found[f"{document['kind']}/{document['metadata']['name']}"] = spec
    return found


def settings_in(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ConfigMap from which the platform's parts read their settings."""
    return next(d for d in made if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-settings"))


def templates(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return kind/name -> the template of every pod that a controller makes."""
    found = {}
    for document in made:
        if document["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            found[f"{document['kind']}/{document['metadata']['name']}"] = document["spec"]["template"]
    return found


READS = {
    "hub": {
        *("hub-cookie", "hub-crypt", "proxy-token", "internal", "passport-client", "database-password"),
        *("service-operator", "service-monitoring", "service-portal", "service-passport", "service-vospace"),
    },
    "passport": {
        *("internal", "passport-client", "passport-keys", "proxy-token", "canary", "database-password"),
        *("service-operator", "service-passport"),
    },
    "portal": {"canary", "service-portal", "database-password"},
    "vospace": {"internal", "service-vospace", "database-password"},
}
"""The platform's secrets that each part has as files."""


def mounted(made: list[dict[str, Any]], part: str) -> dict[str, str]:
    """Return file -> Secret of what a part has in its folder of secrets."""
    (volume,) = [
        each
        for each in templates(made)[f"Deployment/astrocloud-{part}"]["spec"]["volumes"]
        if each["name"] == "secrets"
    ]
    return {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


def scope(role: dict[str, Any]) -> str:
    """Return where a role holds: in the whole cluster, in the release's namespace, or in another one that is named."""
    where: str = role["metadata"].get("namespace", "cluster")
    return "namespace" if where == "platform" else where
