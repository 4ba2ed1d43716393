"""The schemas by which kubeconform checks manifests, made from the API's own description of this version.

Kinds of other projects are described by their CustomResourceDefinitions, which ``tools/crds`` names the versions of.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.kube.cluster.layout import CACHE, TOOLS
from tests.kube.cluster.programs import BuildError, find_go

FOLDER: Final = CACHE / "schemas"
LOCATION: Final = str(FOLDER / "{{.ResourceKind}}{{.KindSuffix}}.json")
"""What kubeconform is told."""

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_KUBERNETES: Final = "k8s.io/kubernetes"
_CUSTOM: Final = {
    "sigs.k8s.io/gateway-api": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
"""Module -> the definitions in it of the kinds that the chart makes."""


def ensure(*, say: Callable[[str], None]) -> None:
    """Make the schemas of the versions in ``tools/kubernetes`` and ``tools/crds``; nothing when they are there.

    Raises
    ------
    BuildError
        When a module cannot be downloaded; the text says why.
    """
    versions = [_version(TOOLS / "kubernetes", _KUBERNETES), *(_version(TOOLS / "crds", module) for module in _CUSTOM)]
    stamp = FOLDER / ".made-of"
    if stamp.exists() and stamp.read_text() == "\n".join(versions):
        return
    downloaded = _download(TOOLS / "kubernetes", _KUBERNETES, say=say)
    api = json.loads((downloaded / "api" / "openapi-spec" / "swagger.json").read_text())
    FOLDER.mkdir(parents=True, exist_ok=True)
    definitions = {name: _strict(name, made) for name, made in api["definitions"].items()}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            made = definition | {"definitions": _reachable(name, definitions)}
            _write(made, kind=kind["kind"], group=kind["group"], version=kind["version"])
    meta = {_META: definitions[_META]} | _reachable(_META, definitions)
    for custom in custom_definitions(say=say):
        spec = custom["spec"]
        for version in spec["versions"]:
            made = _strict_custom(version["schema"]["openAPIV3Schema"])
            made["properties"]["metadata"] = {"$ref": f"#/definitions/{_META}"}
            _write(
                made | {"definitions": meta}, kind=spec["names"]["kind"], group=spec["group"], version=version["name"]
            )
    stamp.write_text("\n".join(versions))


def custom_definitions(*, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the CustomResourceDefinitions of other projects' kinds that the chart makes. Raises `BuildError`."""
    for module, files in _CUSTOM.items():
        folder = _download(TOOLS / "crds", module, say=say)
        for file in files:
            yield yaml.safe_load((folder / file).read_text())


def _version(folder: Path, module: str) -> str:
    """Return ``MODULE@VERSION`` as the go.mod in `folder` has it."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{folder / 'go.mod'} names no version of {module}")
    return f"{module}@{found[1]}"


def _download(folder: Path, module: str, *, say: Callable[[str], None]) -> Path:
    """Return where the module is, whose archive has to be the one that go.sum in `folder` has the hash of."""
    done = subprocess.run(
        [find_go(say=say), "mod", "download", "-json", _version(folder, module)],
        cwd=folder,
        env=os.environ | {"GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{module} cannot be downloaded:\n{done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _write(schema: dict[str, Any], *, kind: str, group: str, version: str) -> None:
    suffix = "-".join(part for part in (group.split(".")[0], version) if part)
    (FOLDER / f"{kind.lower()}-{suffix}.json").write_text(json.dumps(schema))


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


def _strict_custom(node: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a custom kind's schema that refuses what its definition does not name."""
    made = dict(node)
    if node.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if node.get("nullable") and "type" in node:
        made["type"] = [node["type"], "null"]
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            made[key] = _strict_custom(node[key])
    if "properties" in node:
        made["properties"] = {key: _strict_custom(value) for key, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def _reachable(name: str, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        for reference in re.findall(r'"\$ref": "#/definitions/([^"]+)"', json.dumps(definitions[waiting.pop()])):
            if reference not in found:
                found[reference] = definitions[reference]
                waiting.append(reference)
    return found
