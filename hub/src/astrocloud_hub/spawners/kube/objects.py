"""Building what is sent to the cluster for a person: the namespace with what is in it, and the pod of one server.

Pure functions of plain values; tests compare what they return with golden files.
"""

import base64
import hashlib
import json
from typing import Final

from astrocloud.core.cluster import BYTES_PORT, HUB_PORT, SERVICE_PORT, TLS_PORT
from astrocloud_hub.spawners.kube.models import (
    CONTAINER,
    LABEL,
    SERVER_PORT,
    Ground,
    Json,
    PullSecret,
    ServerPlan,
    server_label,
)
from astrocloud_hub.spawners.models import Person
from astrocloud_hub.spawners.sandbox import INIT

HOME_UNUSABLE: Final = 73
"""The exit code of a server whose home cannot be written (EX_CANTCREAT)."""

START_CPUS: Final = 2.0
"""Processors that a start may use, whatever was chosen: the server and what kernels are forked from start side by side,
and a quota of one would stop both for a part of each tenth of a second. `resized` is sent when that is over."""

ENDING: Final = 2
"""Servers beyond those that a person may run for which there is quota: one that is ending still counts while the next
one starts."""

READ_ONLY: Final = ("archive", "course")
"""Folders of the tree that everybody sees and nobody writes."""

SECURE: Final = "https"
"""The name of a server's port, where it is called by TLS."""

START: Final = (
    # Kubernetes makes a folder that is missing, for root: the server would start and fail at the first file.
    'unusable() { echo "$1" >/dev/termination-log; exit ' + str(HOME_UNUSABLE) + "; }; "
    '[ -w "$HOME" ] || unusable "$HOME"; '
    'for folder in /project/*; do [ "$(stat -c %u:%g "$folder" 2>/dev/null)" != 0:0 ] || unusable "$folder"; done; '
    "ulimit -c 0; "
    '{ ulimit -u "$ASTROCLOUD_PROCESSES" || ulimit -p "$ASTROCLOUD_PROCESSES"; } 2>/dev/null; ' + INIT
)
"""What a pod runs first: checks, limits, then process 1 as in the sandbox of one machine."""


def namespace_objects(ground: Ground, person: Person) -> list[Json]:
    """Return what a person's servers need besides their pods, in the order in which it is made."""
    name = ground.namespace(person.username)
    made = [
        _namespace(ground, person, name),
        _quota(ground, name),
        _limit_range(ground, name),
        _deny_all(ground, name),
        _allow_server(ground, name),
        _volume(ground, name, ground.claim, ground.tree),
        _claim(ground, name, ground.claim),
        *(
            [
                _volume(ground, name, ground.archive_claim, ground.archive),
                _claim(ground, name, ground.archive_claim),
            ]
            if ground.archive
            else []
        ),
        *(_pull_secret(ground, name, secret) for secret in ground.pull_secrets),
    ]
    # Told apart from what an earlier version made without asking for each object.
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:32]
    made[0]["metadata"]["annotations"] = {f"{LABEL}/made-from": digest}
    return made


def _metadata(ground: Ground, namespace: str, name: str) -> Json:
    return {"name": name, "namespace": namespace, "labels": ground.labels}


def _namespace(ground: Ground, person: Person, name: str) -> Json:
    strict = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**ground.labels, f"{LABEL}/user": person.username, **strict}},
    }


def _quota(ground: Ground, namespace: str) -> Json:
    quota = ground.quota
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata(ground, namespace, "astrocloud"),
        "spec": {
            "hard": {
                "pods": str(quota.pods),
                "limits.memory": str(quota.memory_bytes),
                "limits.cpu": _cpus(quota.cpus),
                # Those on trees of before stay until an operator deletes them.
                "persistentvolumeclaims": "10",
                "services.loadbalancers": "0",
                "services.nodeports": "0",
            }
        },
    }


def _limit_range(ground: Ground, namespace: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _metadata(ground, namespace, "astrocloud"),
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "default": {"memory": "512Mi", "cpu": "500m"},
                    "defaultRequest": {"memory": "128Mi", "cpu": "50m"},
                    "max": {"memory": str(ground.quota.largest_memory_bytes)},
                }
            ]
        },
    }


def _pull_secret(ground: Ground, namespace: str, secret: PullSecret) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(ground, namespace, secret.copy),
        "type": "kubernetes.io/dockerconfigjson",
        "immutable": True,
        "data": {".dockerconfigjson": base64.b64encode(secret.config).decode()},
    }


def _deny_all(ground: Ground, namespace: str) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(ground, namespace, "deny-all"),
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def _allow_server(ground: Ground, namespace: str) -> Json:
    servers = ground.cluster.servers
    services = sorted(ground.cluster.services)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(ground, namespace, "server"),
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "server"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [_part(ground, "proxy"), _part(ground, "hub")], "ports": [{"port": SERVER_PORT}]},
            ],
            "egress": [
                {
                    "to": servers.dns,
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                },
                {"to": [_part(ground, "hub")], "ports": _ports(ground, HUB_PORT)},
                {"to": [_part(ground, service) for service in services], "ports": _ports(ground, SERVICE_PORT)},
                {"to": [_part(ground, "vospace")], "ports": [{"port": BYTES_PORT}]},
                *servers.egress,
                *servers.archive_egress,
            ],
        },
    }


def _ports(ground: Ground, plain: int) -> list[Json]:
    """Return where a part of ours listens, which without TLS is at `plain`."""
    tls = ground.cluster.tls
    ports = [TLS_PORT, plain] if tls.also_plain else [TLS_PORT]
    return [{"port": port} for port in (ports if tls.internal else [plain])]


def _part(ground: Ground, component: str) -> Json:
    """Return one of the platform's own parts, as a network policy names it."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ground.cluster.namespace}},
        "podSelector": {
            "matchLabels": {
                "app.kubernetes.io/instance": ground.cluster.release,
                "app.kubernetes.io/component": component,
            }
        },
    }


def _volume(ground: Ground, namespace: str, claim: str, source: Json) -> Json:
    """Return a second volume on the bytes of the release's own: a claim cannot be used from another namespace."""
    name = f"{namespace}-{claim}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": ground.labels},
        "spec": {
            # No storage class counts it; what a person may hold is VOSpace's quota.
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": claim,
            },
            **source,
        },
    }


def _claim(ground: Ground, namespace: str, claim: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(ground, namespace, claim),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{claim}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def pod(ground: Ground, plan: ServerPlan) -> Json:
    """Return the pod of one server."""
    servers = ground.cluster.servers
    spec: Json = {
        # A server that ended has a reason, which a restart would hide.
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": "astrocloud",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": plan.person.uid,
            "runAsGroup": plan.person.gid,
            "supplementalGroups": [group.gid for group in plan.person.groups],
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(ground, plan)],
        "volumes": _volumes(ground, plan),
    }
    if servers.priority_class:
        spec["priorityClassName"] = servers.priority_class
    if ground.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.copy} for secret in ground.pull_secrets]
    selector = {**servers.node_selector, **plan.placement.node_selector}
    if selector:
        spec["nodeSelector"] = selector
    if servers.tolerations:
        spec["tolerations"] = servers.tolerations
    affinity = {
        **(_prefer_region(plan.placement.region) if plan.placement.region else {}),
        **(_avoid(plan.placement.avoid) if plan.placement.avoid else {}),
    }
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}
    passwd, group = plan.person.names()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.pod,
            "namespace": ground.namespace(plan.person.username),
            # The operator's own first: what the platform tells servers by is never another's.
            "labels": {
                **servers.pod_labels,
                **ground.pod_labels,
                f"{LABEL}/user": plan.person.username,
                f"{LABEL}/server": server_label(plan.server),
                f"{LABEL}/environment": plan.environment,
                f"{LABEL}/size": plan.size,
            },
            "annotations": {
                **servers.pod_annotations,
                f"{LABEL}/server-name": plan.server,
                # Seen by the server as /etc/passwd and /etc/group: a user id without a name makes programs fail.
                f"{LABEL}/passwd": passwd,
                f"{LABEL}/group": group,
            },
        },
        "spec": spec,
    }


def resized(cpus: float) -> Json:
    """Return the patch of a pod's ``resize`` by which its server has no more than `cpus` processors."""
    return {"spec": {"containers": [{"name": CONTAINER, "resources": {"limits": {"cpu": _cpus(cpus)}}}]}}


def _container(ground: Ground, plan: ServerPlan) -> Json:
    limits = plan.limits
    reserve = ground.cluster.servers.reserve
    variables = {**plan.variables, "ASTROCLOUD_PROCESSES": str(limits.processes)}
    return {
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": plan.pull_policy,
        "command": ["/bin/sh", "-c", START, "astrocloud-server", *plan.command],
        # The home is entered by the server itself: one that cannot be would keep the container from starting.
        "workingDir": "/",
        "env": [{"name": name, "value": variables[name]} for name in sorted(variables)],
        # A hub that is started anew reads here how to call it.
        "ports": [{"name": SECURE if plan.tls else "http", "containerPort": SERVER_PORT}],
        "resources": {
            "limits": {"memory": str(limits.memory_bytes), "cpu": _cpus(max(limits.cpus, START_CPUS))},
            "requests": {
                "memory": str(round(limits.memory_bytes * reserve.memory)),
                "cpu": _cpus(limits.cpus * reserve.cpus),
            },
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last lines of its log, for a server that does not come up: reading logs would be one more right.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(ground, plan),
    }


def _mounts(ground: Ground, plan: ServerPlan) -> list[Json]:
    username = plan.person.username
    mounts: list[Json] = [{"name": "tree", "mountPath": f"/home/{username}", "subPath": f"home/{username}"}]
    mounts += [
        {"name": "tree", "mountPath": f"/project/{group.name}", "subPath": f"project/{group.name}"}
        for group in plan.person.groups
    ]
    if not plan.person.groups:
        # It is there for everybody, as on one machine.
        mounts.append({"name": "nothing", "mountPath": "/project", "readOnly": True})
    mounts += [
        {"name": "archive", "mountPath": "/archive", "readOnly": True}
        if name == "archive" and ground.archive
        else {"name": "tree", "mountPath": f"/{name}", "subPath": name, "readOnly": True}
        for name in READ_ONLY
    ]
    return [
        *mounts,
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod, and only its own
        {"name": "var-tmp", "mountPath": "/var/tmp"},  # noqa: S108 - the same
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the same
        {"name": "names", "mountPath": "/etc/passwd", "subPath": "passwd", "readOnly": True},
        {"name": "names", "mountPath": "/etc/group", "subPath": "group", "readOnly": True},
    ]


def _volumes(ground: Ground, plan: ServerPlan) -> list[Json]:
    size = str(int(ground.cluster.servers.tmp_size))
    names = [
        {"path": name, "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{LABEL}/{name}']"}}
        for name in ("passwd", "group")
    ]
    return [
        {"name": "tree", "persistentVolumeClaim": {"claimName": ground.claim}},
        *(
            [{"name": "archive", "persistentVolumeClaim": {"claimName": ground.archive_claim, "readOnly": True}}]
            if ground.archive
            else []
        ),
        {"name": "tmp", "emptyDir": {"sizeLimit": size}},
        {"name": "var-tmp", "emptyDir": {"sizeLimit": size}},
        # What is in it counts as memory of the server.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(plan.limits.memory_bytes // 2)}},
        {"name": "names", "downwardAPI": {"items": names}},
        *([] if plan.person.groups else [{"name": "nothing", "emptyDir": {}}]),
    ]


def _prefer_region(region: str) -> Json:
    wanted = {"key": "topology.kubernetes.io/region", "operator": "In", "values": [region]}
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [wanted]}}
        ]
    }


def _avoid(nodes: tuple[str, ...]) -> Json:
    # Kubernetes takes one name in each.
    others = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": others}]}}


def _cpus(cpus: float) -> str:
    return f"{max(1, round(cpus * 1000))}m"
