"""A platform that Helm installed on a cluster, for the tests to use."""

import asyncio
import json
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import aiohttp

from tests.kube.cluster.layout import VOLUMES
from tests.kube.cluster.machines import wait_until
from tests.kube.cluster.programs import program
from tests.kube.kubectl import Kubectl
from tests.support.person import Person

CHART: Final = Path(__file__).parents[2] / "helm" / "astrocloud"
BASELINE: Final = {"pod-security.kubernetes.io/enforce": "baseline"}
"""VOSpace owns files as people do, which is more than Pod Security's ``restricted`` lets anybody."""


def named(reference: str) -> dict[str, str]:
    """Return an image of the chart's values that is named by its digest."""
    repository, _, digest = reference.partition("@")
    return {"repository": repository, "digest": digest}


def free_node_port(kube: Kubectl) -> int:
    """Return a port on the nodes that no Service has: people's addresses are known before the platform is installed."""
    services = kube.get("services", "--all-namespaces")["items"]
    taken = {port.get("nodePort") for service in services for port in service["spec"]["ports"]}
    return secrets.choice([port for port in range(30000, 32768) if port not in taken])


def values_for(images: dict[str, str], *, public_url: str, node_port: int) -> dict[str, Any]:
    """Return the chart's values for a small platform of `images`, named by their digests."""
    small: dict[str, Any] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    return {
        "config": {"public_url": public_url, "logging": {"level": "info"}},
        "hub": {"image": named(images["hub"]), "resources": small | {"limits": {"memory": "1Gi"}}},
        "proxy": {
            "image": named(images["proxy"]),
            "resources": small,
            "service": {"type": "NodePort", "nodePort": node_port},
        },
        "services": {
            "image": named(images["services"]),
            "passport": {"resources": small},
            "portal": {"replicas": 2, "resources": small},
            "vospace": {"replicas": 2, "resources": small},
        },
        "environments": {"astro": {"image": named(images["astro"])}},
        "database": {"bundled": {"image": named(images["database"]), "size": "1Gi", "resources": small}},
        "storage": {"tree": {"claim": {"size": "1Gi"}}},
        # Volumes of the tests' own cluster are folders.
        "admissionPolicy": {"hostPaths": [str(VOLUMES)]},
    }


@dataclass(kw_only=True)
class Installation:
    """One release of the chart in a namespace of its own."""

    kube: Kubectl
    namespace: str
    release: str
    url: str
    """Where people come in."""
    values: dict[str, Any]
    """What it is installed with."""
    passwords: dict[str, str] = field(default_factory=dict)
    """The people whom the tests added."""
    browser: Callable[[str, str, str], Person] = Person
    """What makes a person of an address, a name and a password."""

    @property
    def name(self) -> str:
        """What the names of its objects begin with."""
        return f"{self.release}-astrocloud"

    def namespace_of(self, username: str) -> str:
        """Return the namespace of a person's servers."""
        prefix = self.values.get("servers", {}).get("namespacePrefix", "astro-")
        return f"{prefix}{username}"

    def helm(self, *arguments: str, given: Any = None) -> str:
        """Return what helm prints."""
        return self.run_helm(*arguments, given=given).stdout

    def run_helm(self, *arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
        """Return what helm prints and says besides; it does not fail."""
        command = [str(program("helm")), "--kubeconfig", str(self.kube.kubeconfig), "--namespace", self.namespace]
        text = None if given is None else json.dumps(given)
        done = subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done

    def apply(self, *, chart: Path = CHART, **changed: Any) -> str:
        """Install or upgrade the release with its values, `changed` in place of those at the top.

        Returns what Helm says about it.
        """
        known = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))["properties"]
        # The version before does not know them all.
        values = {name: value for name, value in (self.values | changed).items() if name in known}
        command = ("upgrade", "--install", self.release, str(chart), "--values", "-", "--timeout", "300s")
        return self.run_helm(*command, given=values).stderr

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it runs, in the order in which one waits for the other."""
        bundled = self.values["database"].get("kind", "bundled") == "bundled"
        return (*(("database",) if bundled else ()), "passport", "portal", "vospace", "hub", "proxy")

    def wait(self, *parts: str, within_s: int = 240) -> None:
        """Return when all pods of `parts`, by default of every part, are ready and of the newest kind.

        When it is every part, the ways to them are the new ones, too: nodes hear of them a moment after Kubernetes.
        """
        for part in parts or self.parts:
            kind = "statefulset" if part == "database" else "deployment"
            self.kubectl("rollout", "status", f"--timeout={within_s}s", f"{kind}/{self.name}-{part}")
        if not parts:
            # Not at the public address: something may stand in front of it that follows the installation.
            by_tls = self.values.get("tls", {}).get("front", False)
            front = self.url.replace("http:", "https:") if by_tls else self.url
            for path in ("hub/health", "services/passport/ready", "services/portal/ready", "services/vospace/ready"):
                wait_until(
                    f"an answer of {path}",
                    partial(answers, f"{front}/{path}"),
                    within_s=60,
                )

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        """Return what kubectl prints about the release's namespace."""
        return self.kube.kubectl("-n", self.namespace, *arguments, given=given)

    def pods(self, part: str) -> list[dict[str, Any]]:
        """Return the pods of `part` that are not on their way out."""
        selector = f"app.kubernetes.io/component={part},app.kubernetes.io/instance={self.release}"
        found: list[dict[str, Any]] = self.kube.get("pods", "-n", self.namespace, "-l", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def delete(self, part: str, *, at_once: bool = True) -> None:
        """Delete the pods of `part`, as if their node had ended them."""
        names = [pod["metadata"]["name"] for pod in self.pods(part)]
        self.kubectl("delete", "pod", *names, *(("--grace-period=0", "--force") if at_once else ()))

    def run(self, *command: str, given: str | None = None) -> str:
        """Return what a command prints in the passport's pod, where an operator's commands are given."""
        pod = f"deployment/{self.name}-passport"
        done = self.kube.run("exec", *(["-i"] if given else []), "-n", self.namespace, pod, "--", *command, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, name: str, *, admin: bool = False, groups: tuple[str, ...] = ()) -> str:
        """Return the password of the person `name`, whom an operator adds if need be."""
        if name not in self.passwords:
            password = secrets.token_urlsafe(12)
            flags = [*(["--admin"] if admin else []), *(f"--group={group}" for group in groups)]
            self.run("astrocloud", "user", "add", name, "--password-stdin", *flags, given=password + "\n")
            self.passwords[name] = password
        return self.passwords[name]

    def token(self, name: str) -> str:
        """Return a token of the person `name`."""
        self.add(name)
        return self.run("astrocloud", "token", name).strip()

    def person(self, name: str) -> Person:
        """Return the person `name` at a browser, not signed in yet."""
        return self.browser(self.url, name, self.add(name))

    def keys(self) -> dict[str, str]:
        """Return the platform's own keys, as Kubernetes writes them."""
        data: dict[str, str] = self.kube.get("secret", "-n", self.namespace, f"{self.name}-secrets")["data"]
        return data


def answers(address: str) -> bool:
    """Whether something answers well at `address`, whatever its certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(address, timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def installed(
    kube: Kubectl,
    images: dict[str, str],
    *,
    chart: Path = CHART,
    places: Mapping[str, str] = MappingProxyType({}),
    prepare: Callable[[Installation], None] = lambda _: None,
    **changed: Any,
) -> Iterator[Installation]:
    """Install a platform of `images` in a namespace of its own, with every part running, and leave nothing of it.

    `changed` are values in place of those of `values_for` at the top; `places` has the nodes of parts that have one;
    `prepare` does in the namespace what an operator does before the installation.
    """
    address = next(
        found["address"]
        for found in kube.get("nodes")["items"][0]["status"]["addresses"]
        if found["type"] == "InternalIP"
    )
    port = free_node_port(kube)
    url = f"http://{address}:{port}"
    values = values_for(images, public_url=url, node_port=port)
    for part, node in places.items():
        block = values["database"]["bundled"] if part == "database" else values[part]
        block["nodeSelector"] = {"kubernetes.io/hostname": node}
    config = values["config"] | changed.pop("config", {})
    made = Installation(
        kube=kube,
        namespace=f"test-{secrets.token_hex(3)}",
        release="sky",
        url=url,
        values=values | {"config": config} | changed,
    )
    metadata = {"name": made.namespace, "labels": BASELINE}
    kube.kubectl("create", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        prepare(made)
        made.apply(chart=chart)
        made.wait()
        yield made
    finally:
        made.helm("uninstall", made.release, "--ignore-not-found", "--wait")
        # A namespace with pods that end is not looked at again for half of the longest time they are given.
        made.kubectl(
            "wait",
            "--for=delete",
            "pods",
            "--field-selector=status.phase!=Succeeded,status.phase!=Failed",
            "--timeout=120s",
        )
        prefix = made.namespace_of("")
        people = [each["metadata"]["name"] for each in kube.get("namespaces")["items"]]
        # With a prefix of its own, the people's namespaces are this installation's.
        theirs = [name for name in people if prefix != "astro-" and name.startswith(prefix)]
        kube.kubectl("delete", "namespace", made.namespace, *theirs, "--timeout=180s")
        # The version before calls a person's volume the same wherever the tree is: it would wait for this one's.
        volumes = kube.get("persistentvolumes")["items"]
        claimed = {each["metadata"]["name"]: each["spec"].get("claimRef", {}).get("namespace") for each in volumes}
        released = [volume for volume, namespace in claimed.items() if namespace in theirs]
        if released:
            kube.kubectl("delete", "persistentvolume", *released)


async def until(what: str, condition: Callable[[], Any], *, within_s: float = 60) -> float:
    """Return after how many seconds the awaitable that `condition` makes was true; refusals count as false."""
    began = time.monotonic()
    while True:
        with suppress(aiohttp.ClientError, TimeoutError, AssertionError, OSError):
            if await condition():
                return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{what}: not within {within_s} s")
        await asyncio.sleep(0.1)
