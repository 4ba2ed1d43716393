"""Make the platform's own secrets once, as one Secret of this namespace, and never change one that is there.

It runs as a job inside the cluster, so that no key is ever in a chart's values or manifests. ``--name`` names the
Secret; the arguments name the secrets, each 256 random bits as 64 hexadecimal digits. With an upgrade that needs a
new secret only that one is added.
"""

import argparse
import base64
import json
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API: Final = "https://kubernetes.default.svc"


class Cluster:
    """The cluster's API, as this pod's service account."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
        namespace = (ACCOUNT / "namespace").read_text(encoding="utf-8")
        self._secrets = f"{API}/api/v1/namespaces/{namespace}/secrets"

    def send(self, method: str, name: str = "", body: object = None, kind: str = "application/json") -> dict[str, Any]:
        """Return the answer to a request about the Secret `name`, or about all for an empty one."""
        url = f"{self._secrets}/{name}" if name else self._secrets
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, method=method, data=data)  # noqa: S310 - the API is always https
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text(encoding='utf-8')}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))


def ensure(cluster: Cluster, name: str, wanted: list[str]) -> list[str]:
    """Return the secrets of `wanted` that were missing and are made now."""
    try:
        there = cluster.send("GET", name)
    except urllib.error.HTTPError as err:
        if err.code != 404:
            raise
        there = {}
    missing = [key for key in wanted if key not in (there.get("data") or {})]
    data = {key: base64.b64encode(secrets.token_hex(32).encode()).decode() for key in missing}
    if not there:
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
        cluster.send("POST", body=document)
    elif missing:
        # The version guards against a second job: of two, one is refused and finds them there when tried again.
        change = {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]}, "data": data}
        cluster.send("PATCH", name, change, kind="application/merge-patch+json")
    return missing


def main() -> int:
    """Make what is missing; say which, never what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("secrets", nargs="+")
    options = parser.parse_args()
    try:
        made = ensure(Cluster(), options.name, options.secrets)
    except urllib.error.HTTPError as err:
        sys.stderr.write(f"Secret {options.name}: the cluster answered {err.code} {err.reason}\n")
        return 1
    sys.stdout.write(f"Secret {options.name}: made {', '.join(made) or 'nothing, all are there'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
