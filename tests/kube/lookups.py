"""What Helm renders when it can look at a cluster: one that is pretended here, and has what a test says."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.kube.cluster.programs import program
from tests.kube.rendering import CHART, chart_programs

Json = dict[str, Any]
ANSWERS: dict[str, Json] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
}


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def path_of(made: Json) -> str:
    """Return where an object is at the cluster's API."""
    version, metadata = made["apiVersion"], made["metadata"]
    top = "/api/v1" if version == "v1" else f"/apis/{version}"
    within = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{top}{within}/{plural(made['kind'])}/{metadata['name']}"


def known_kinds(made: list[Json]) -> dict[str, Json]:
    """Return what a cluster answers who asks it for its kinds: those of `made`, and those that are looked up."""
    looked_up = [
        ("v1", "PersistentVolume", False),
        ("v1", "PersistentVolumeClaim", True),
        ("v1", "Secret", True),
        ("apps/v1", "StatefulSet", True),
    ]
    kinds = {*looked_up, *((each["apiVersion"], each["kind"], "namespace" in each["metadata"]) for each in made)}
    answers: dict[str, Json] = {}
    for version in sorted({version for version, _, _ in kinds}):
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": namespaced, "singularName": "", "verbs": ["get"]}
            for own, kind, namespaced in sorted(kinds)
            if own == version
        ]
        top = "/api/v1" if version == "v1" else f"/apis/{version}"
        answers[top] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    groups = [
        {"name": version.partition("/")[0], "versions": [named], "preferredVersion": named}
        for version in sorted({version for version, _, _ in kinds if version != "v1"})
        for named in [{"groupVersion": version, "version": version.partition("/")[2]}]
    ]
    return answers | {"/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}}


@contextmanager
def cluster_with(answers: dict[str, Json]) -> Iterator[str]:
    """Run what answers as a cluster does that has these objects, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            nothing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or nothing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def settings(values: Json) -> list[str]:
    """Return the arguments that set `values`."""
    return [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]


def asked(
    folder: Path, values: Json, *, there: list[Json], kinds: list[Json], upgrade: bool = True
) -> subprocess.CompletedProcess[str]:
    """Ask Helm what an upgrade or an installation would make on a cluster.

    Parameters
    ----------
    folder
        Where Helm keeps what it remembers of the cluster.
    there
        What the cluster has.
    kinds
        Objects of the kinds that it knows.
    """
    chart_programs()
    nobody = folder / "kubeconfig"
    nobody.write_text("", encoding="utf-8")
    answers = ANSWERS | known_kinds(kinds) | {path_of(each): each for each in there}
    with cluster_with(answers) as address:
        command = [str(program("helm")), "template", "astrocloud", str(CHART), "--namespace", "platform"]
        server = ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", address]
        return subprocess.run(
            [*command, *server, *(["--is-upgrade"] if upgrade else []), "--kubeconfig", str(nobody), *settings(values)],
            capture_output=True,
            text=True,
            check=False,
            # What it remembers of a cluster at this address is another one's at the next.
            env=os.environ | {"KUBECACHEDIR": str(folder)},
        )
