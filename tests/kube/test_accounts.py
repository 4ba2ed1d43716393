"""What the accounts that the chart makes may do at the cluster's API, asked of the cluster itself."""

import base64
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml

from tests.kube.installation import Installation, named, until
from tests.kube.test_platform import both
from tests.kube.working import events_page, working

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

RIGHTS: Final = Path(__file__).with_name("rights.yaml")

NEVER: Final = (
    "get secrets",
    "list secrets",
    "watch secrets",
    "create pods/exec",
    "get pods/log",
    "get pods/proxy",
    "delete namespaces",
    "create clusterrolebindings",
    "bind clusterroles",
    "escalate clusterroles",
    "impersonate users",
    "get nodes/proxy",
    "create serviceaccounts/token",
    "patch nodes",
    "update persistentvolumes",
)
"""What would make more of the hub's account than it is, anywhere in the cluster."""


def may(installation: Installation, question: list[str]) -> bool:
    account = f"system:serviceaccount:{installation.namespace}:{installation.name}-hub"
    told = installation.kube.run("auth", "can-i", *question, f"--as={account}").stdout.strip()
    assert told in {"yes", "no"}, (question, told)
    return told == "yes"


def questions(right: dict[str, Any], installation: Installation) -> list[list[str]]:
    """Return what to ask about one reviewed entry."""
    where = {"cluster": ["--all-namespaces"], "namespace": ["-n", installation.namespace]}
    asked = []
    for rule in right["rules"]:
        for resource in rule["resources"]:
            for group in rule["groups"]:
                kind, _, below = resource.partition("/")
                kind = f"{kind}.{group}" if group else kind
                sub = [f"--subresource={below}"] if below else []
                for name in rule.get("names", [""]):
                    object_ = f"{kind}/{name.replace('astrocloud-', 'sky-astrocloud-', 1)}" if name else kind
                    place = where.get(right["scope"], ["-n", right["scope"]])
                    asked += [[verb, object_, *sub, *place] for verb in rule["verbs"]]
    return asked


def test_the_hub_has_each_reviewed_right(installation: Installation) -> None:
    reviewed = yaml.safe_load(RIGHTS.read_text(encoding="utf-8"))

    asked = [each for right in reviewed if right["holder"] == "hub" for each in questions(right, installation)]

    assert len(asked) > 15
    assert [each for each in asked if not may(installation, each)] == []


def test_the_hub_has_nothing_that_makes_it_more(installation: Installation) -> None:
    asked = []
    for each in NEVER:
        verb, resource = each.split()
        kind, _, below = resource.partition("/")
        asked.append([verb, kind, *([f"--subresource={below}"] if below else []), "--all-namespaces"])

    assert [each for each in asked if may(installation, each)] == []


def test_nobody_else_has_any_right(installation: Installation) -> None:
    """People's pods and the other parts run without an account's token, and that account has no rights either."""
    for namespace in (installation.namespace, "default"):
        account = f"system:serviceaccount:{namespace}:default"
        for question in ("list pods", "get secrets", "create pods"):
            told = installation.kube.run("auth", "can-i", *question.split(), "-A", f"--as={account}").stdout.strip()
            assert told == "no", (account, question)


async def test_the_hub_s_own_account_sees_the_nodes_before_the_first_server(installation: Installation) -> None:
    token = base64.b64decode(installation.keys()["service-portal"]).decode()
    headers = {"Authorization": f"token {token}"}

    async def known() -> bool:
        async with aiohttp.request("GET", f"{installation.url}/hub/api/astrocloud/nodes", headers=headers) as answer:
            told = await answer.json()
            assert (answer.status, told["nodes"]) == (200, [])
            return bool(told["known"])

    await until("the nodes are known", known, within_s=60)
    assert "Events" in await events_page(installation)


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["deleted", "drained"])
async def test_the_hub_s_own_account_sees_how_a_server_ends(
    installation: Installation, astro: str, reason: str
) -> None:
    """With the rights that the chart gives it and no more: see `test_servers.py` for all other ends."""
    before = installation.values
    installation.values = before | {"environments": {"astro": {"image": named(astro)}}}
    installation.apply()
    installation.wait()
    try:
        async with working(installation, "eda") as eda:
            namespace = installation.namespace_of("eda")
            (pod,) = installation.kube.get("pods", "-n", namespace)["items"]
            name = pod["metadata"]["name"]
            if reason == "deleted":
                installation.kube.kubectl("delete", "pod", "-n", namespace, name, "--wait=false")
            else:
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
                about = {"name": name, "namespace": namespace}
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
                installation.kube.kubectl("create", "--raw", path, "-f", "-", given=body)

            async def told() -> bool:
                return await eda.person.reason_of_end() == reason

            await until(f"the end of the server: {reason}", told, within_s=30)
            assert await both(eda.person)
    finally:
        installation.values = before
        installation.apply()
        installation.wait()
