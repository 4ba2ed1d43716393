"""Make a volume for each claim of the storage class ``shared``, and remove it with its claim.

A volume is a folder that all nodes see, so every access mode holds. It is what a real cluster's NFS or CephFS
provisioner does, as far as the platform can tell.
"""

import json
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.kube.cluster import pki
from tests.kube.cluster.control import PROVISIONER, STORAGE_CLASS
from tests.kube.cluster.layout import API_URL, VOLUMES

_RETRY_S = 0.5


class Api:
    """The few requests that making volumes takes."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context(cafile=pki.certificate("ca"))
        self._tls.load_cert_chain(pki.certificate("provisioner"), pki.key("provisioner"))

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request and return the open answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(API_URL + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        return urllib.request.urlopen(request, context=self._tls, timeout=330)

    def each(self, resource: str) -> Iterator[dict[str, Any]]:
        """Yield every object of a kind, and from then on each one that is new or changes; ends when the API does."""
        path = f"/api/v1/{resource}"
        with self.send("GET", path) as answer:
            listed = json.load(answer)
        yield from listed["items"]
        version = listed["metadata"]["resourceVersion"]
        with self.send("GET", f"{path}?watch=1&timeoutSeconds=300&resourceVersion={version}") as answer:
            for line in answer:
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED"}:
                    yield event["object"]


def serve_claim(api: Api, claim: dict[str, Any]) -> None:
    """Make the volume of a claim that waits for one."""
    spec, metadata = claim["spec"], claim["metadata"]
    waits = claim.get("status", {}).get("phase") == "Pending" and not spec.get("volumeName")
    if not waits or spec.get("storageClassName") != STORAGE_CLASS:
        return
    name = f"shared-{metadata['uid']}"
    folder = VOLUMES / name
    folder.mkdir(exist_ok=True)
    # As provisioners of shared folders do: who may write is settled by what first uses it.
    folder.chmod(0o777)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }
    try:
        api.send("POST", "/api/v1/persistentvolumes", volume).close()
    except urllib.error.HTTPError as err:
        # Made for an earlier event of the same claim.
        if err.code != 409:
            raise


def serve_volume(api: Api, volume: dict[str, Any]) -> None:
    """Remove a volume whose claim is gone, and its bytes."""
    spec, name = volume["spec"], volume["metadata"]["name"]
    ours = spec.get("storageClassName") == STORAGE_CLASS and re.fullmatch(r"shared-[0-9a-f-]{36}", name)
    released = volume.get("status", {}).get("phase") == "Released"
    if not ours or not released or spec.get("persistentVolumeReclaimPolicy") != "Delete":
        return
    shutil.rmtree(VOLUMES / name, ignore_errors=True)
    try:
        api.send("DELETE", f"/api/v1/persistentvolumes/{name}").close()
    except urllib.error.HTTPError as err:
        if err.code != 404:
            raise


def _keep_serving(resource: str, serve: Any) -> None:
    api = Api()
    while True:
        try:
            for found in api.each(resource):
                serve(api, found)
        except (OSError, ValueError, KeyError) as err:
            print(f"{resource}: {err}", flush=True)
            time.sleep(_RETRY_S)


def main() -> None:
    """Serve claims and volumes until the process is ended."""
    volumes = threading.Thread(target=_keep_serving, args=("persistentvolumes", serve_volume), daemon=True)
    volumes.start()
    _keep_serving("persistentvolumeclaims", serve_claim)


if __name__ == "__main__":
    main()
