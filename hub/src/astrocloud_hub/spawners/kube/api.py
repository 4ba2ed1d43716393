"""Talking to the cluster's API: plain JSON in and out, on the connections that KubeSpawner keeps."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp

from astrocloud_hub.spawners.kube.models import Json

_TIMEOUT_S: Final = 10
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/strategic-merge-patch+json"
_COLLECTIONS: Final = {
    "Namespace": "/api/v1/namespaces",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "ResourceQuota": "/api/v1/namespaces/{namespace}/resourcequotas",
    "LimitRange": "/api/v1/namespaces/{namespace}/limitranges",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
}


class ClusterError(Exception):
    """The cluster refuses a request, or cannot be reached (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message


class ClusterApi:
    """The cluster's API.

    Parameters
    ----------
    client
        An ``ApiClient`` of kubernetes_asyncio, which knows the address and who we are.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, path: str, **query: str) -> Json:
        """Return what is at `path`. Raises `ClusterError`."""
        return await self._ask("GET", path, query=query)

    async def create(self, made: Json) -> Json:
        """Create an object and return it as the cluster has it. Raises `ClusterError`; 409 when it is there."""
        return await self._ask("POST", collection(made), body=made)

    async def apply(self, made: Json) -> Json:
        """Create an object, or make the one there like it, and return it. Raises `ClusterError`."""
        path = f"{collection(made)}/{made['metadata']['name']}"
        query = {"fieldManager": "astrocloud-hub", "force": "true"}
        return await self._ask("PATCH", path, query=query, body=made, kind=_APPLY)

    async def change(self, path: str, patch: Json) -> Json:
        """Change what is at `path` as `patch` says, and return it. Raises `ClusterError`."""
        return await self._ask("PATCH", path, body=patch, kind=_MERGE)

    async def delete_pod(self, namespace: str, name: str, *, grace_s: int, uid: str = "") -> bool:
        """Ask for the end of a pod; tell whether it was there. Raises `ClusterError`."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace_s}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body=body)
        except ClusterError as err:
            if err.status not in {404, 409}:
                raise
            return False
        return True

    async def watch(self, path: str, *, version: str, seconds: int, **query: str) -> AsyncIterator[Json]:
        """Yield what changes at `path` after `version` for so many seconds, bookmarks among it.

        Raises
        ------
        ClusterError
            410 when `version` is too old, 0 when the connection breaks.
        """
        query |= {
            "watch": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        # A connection that went silent would otherwise be believed in for ever.
        patience = aiohttp.ClientTimeout(sock_connect=_TIMEOUT_S, sock_read=seconds + _TIMEOUT_S)
        answer = await self._open("GET", path, query=query, patience=patience)
        try:
            async for line in answer.content:
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    raise ClusterError(int(event["object"].get("code") or 0), str(event["object"].get("message")))
                yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise ClusterError(0, f"the watch broke: {type(err).__name__}") from err
        finally:
            answer.close()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        kind: str = "",
    ) -> Json:
        answer = await self._open(method, path, query=query, body=body, kind=kind)
        try:
            found: Json = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise ClusterError(0, f"{method} {path}: {type(err).__name__}") from err
        return found

    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        kind: str = "",
        patience: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"])
            answer: aiohttp.ClientResponse = await self._client.rest_client.request(
                method,
                self._client.configuration.host + path,
                query_params=dict(query) if query else None,
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=patience or aiohttp.ClientTimeout(total=_TIMEOUT_S),
            )
            if answer.status < 400:
                return answer
            text = await answer.text()
        except asyncio.CancelledError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise ClusterError(0, f"the cluster's API does not answer: {type(err).__name__}") from err
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            message = text[:300]
        raise ClusterError(answer.status, message)


def collection(made: Json) -> str:
    """Return the path below which objects like `made` are."""
    return _COLLECTIONS[made["kind"]].format(namespace=made["metadata"].get("namespace", ""))
