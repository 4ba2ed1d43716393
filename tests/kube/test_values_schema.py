"""The schema of the chart's values is made from the platform's own models."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrocloud.config import json_schema
from astrocloud.core.runtime import SERVICES
from helm import values_schema


def described(node: Any, where: str = "") -> list[str]:
    """Return the fields without a description."""
    missing: list[str] = []
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            if "description" not in field and "$ref" not in field:
                missing.append(f"{where}.{name}")
        for name, inner in node.items():
            missing += described(inner, f"{where}.{name}")
    return missing


def test_the_file_is_current() -> None:
    assert values_schema.FILE.read_text(encoding="utf-8") == values_schema.text(), "run: python helm/values_schema.py"


def test_the_block_config_is_the_platforms_own() -> None:
    def keys(schema: dict[str, Any]) -> dict[str, list[str]]:
        blocks = {"": schema, **schema["$defs"]}
        return {name: sorted(block["properties"]) for name, block in blocks.items() if "properties" in block}

    chart = keys(values_schema.schema())
    ours = keys(json_schema())

    assert chart["Config"] == ours.pop("")
    # A block of the chart's own by the same name would give both longer ones, and fail here.
    assert {name: chart.get(name) for name in ours} == ours


def test_every_value_says_what_it_is() -> None:
    assert described(values_schema.schema()) == []


def test_the_defaults_are_values(repository: Path) -> None:
    values = yaml.safe_load((repository / "helm/astrocloud/values.yaml").read_text(encoding="utf-8"))

    values_schema.Values.model_validate(values)
    assert set(values["services"]) == {"image", *SERVICES}


@pytest.mark.parametrize("file", ["production.yaml", "everything.yaml"])
def test_examples_are_values(file: str, repository: Path) -> None:
    folder = repository / "helm/astrocloud"
    values = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))
    given = yaml.safe_load((Path(__file__).parent / "values" / file).read_text(encoding="utf-8"))

    values_schema.Values.model_validate(merged(values, given))


def merged(base: Any, over: Any) -> Any:
    """Return what Helm makes of two sets of values."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base.get(key), value) for key, value in over.items()}
    return over


def test_the_chart_makes_every_secret_that_the_platform_reads(repository: Path) -> None:
    listed = (repository / "helm/astrocloud/files/secrets.txt").read_text(encoding="utf-8").splitlines()
    sources = [p for top in ("services/src", "hub/src") for p in (repository / top).rglob("*.py")]
    read = {
        name.replace("{name}", service)
        for source in sources
        for name in re.findall(r"secrets\.(?:get|path)\(f?\"([a-z{}-]+)\"\)", source.read_text(encoding="utf-8"))
        for service in SERVICES
    }

    assert read
    assert read <= set(listed)


def test_whatever_makes_pods_takes_what_every_operator_asks_for() -> None:
    """Where they run, what they are called by, and how much they matter."""
    blocks = {
        name: block["properties"].keys()
        for name, block in values_schema.schema()["$defs"].items()
        if "tolerations" in block.get("properties", {})
    }
    everywhere = {"nodeSelector", "tolerations", "podAnnotations", "podLabels", "priorityClassName"}

    assert {"Hub", "Proxy", "VospaceWorkload", "GlusterfsTree", "Prepuller", "Job", "ServerPods"} <= blocks.keys()
    assert {name: everywhere - known for name, known in blocks.items() if everywhere - known} == {}


def test_the_schema_is_json_schema() -> None:
    schema = json.loads(values_schema.text())

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
