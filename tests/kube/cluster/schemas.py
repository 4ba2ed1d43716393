"""The schemas by which kubeconform checks manifests, made from the API's own description of this version."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.kube.cluster.layout import CACHE, TOOLS
from tests.kube.cluster.programs import find_go

FOLDER: Final = CACHE / "schemas"
LOCATION: Final = str(FOLDER / "{{.ResourceKind}}{{.KindSuffix}}.json")
"""What kubeconform is told."""


def ensure(*, say: Callable[[str], None]) -> None:
    """Make the schemas of the Kubernetes version in ``tools/kubernetes``; nothing when they are there."""
    mod = (TOOLS / "kubernetes" / "go.mod").read_text()
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", mod, re.MULTILINE)
    version = found[1] if found else ""
    stamp = FOLDER / ".version"
    if stamp.exists() and stamp.read_text() == version:
        return
    done = subprocess.run(
        [find_go(say=say), "mod", "download", "-json", f"k8s.io/kubernetes@{version}"],
        cwd=TOOLS / "kubernetes",
        env=os.environ | {"GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=True,
    )
    api = json.loads((Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json").read_text())
    FOLDER.mkdir(parents=True, exist_ok=True)
    definitions = {name: _strict(name, made) for name, made in api["definitions"].items()}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            suffix = "-".join(part for part in (group, kind["version"]) if part)
            file = FOLDER / f"{kind['kind'].lower()}-{suffix}.json"
            file.write_text(json.dumps(definition | {"definitions": _reachable(name, definitions)}))
    stamp.write_text(version)


def _strict(name: str, node: dict[str, Any]) -> dict[str, Any]:
    """Return a definition that refuses fields it does not know and takes the API's looser kinds of values."""
    if name.endswith((".Quantity", ".IntOrString")):
        return {"type": ["string", "number"]}
    made = {key: value for key, value in node.items() if key != "properties"}
    if "properties" in node:
        made["properties"] = {key: _optional(value) for key, value in node["properties"].items()}
        made["additionalProperties"] = False
    return made


def _optional(field: dict[str, Any]) -> dict[str, Any]:
    # The API takes null for a field that is not given.
    return field if "$ref" in field else field | {"type": [field["type"], "null"]} if "type" in field else field


def _reachable(name: str, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        for reference in re.findall(r'"\$ref": "#/definitions/([^"]+)"', json.dumps(definitions[waiting.pop()])):
            if reference not in found:
                found[reference] = definitions[reference]
                waiting.append(reference)
    return found
