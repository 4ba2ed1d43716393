"""People at work on the installed platform, with the real environment, while its parts come and go."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from tests.kube.installation import Installation, named, until
from tests.kube.test_platform import both, say
from tests.kube.working import answers, two_at_work, working

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(1800)]

GROUP = "survey"


@pytest.fixture(scope="module")
def platform(installation: Installation, astro: str) -> Iterator[Installation]:
    """The installation with the environment Astronomy on its menu, and two people of one group."""
    before = installation.values
    installation.values = before | {"environments": {"astro": {"image": named(astro)}}}
    installation.apply()
    installation.wait()
    installation.kubectl("rollout", "status", "--timeout=600s", f"daemonset/{installation.name}-prepuller")
    for name in ("cara", "dan"):
        installation.add(name, groups=(GROUP,))
    yield installation
    for name in ("cara", "dan", "canary", "canary-test"):
        space = installation.namespace_of(name)
        installation.kube.kubectl("delete", "namespace", space, "--ignore-not-found", "--timeout=120s")
    installation.values = before
    installation.apply()
    installation.wait()


async def test_one_tree_on_two_nodes_and_by_vospace(platform: Installation) -> None:
    token = platform.token("cara")
    files = f"{platform.url}/services/vospace/files"
    headers = {"Authorization": f"Bearer {token}"}
    async with two_at_work(platform, other=-1) as (cara, dan), aiohttp.ClientSession(headers=headers) as session:
        assert cara.node != dan.node

        await cara.run(f"open('/project/{GROUP}/night.txt', 'w').write('seen from one node')")
        assert await dan.run(f"print(open('/project/{GROUP}/night.txt').read())") == "seen from one node"
        async with session.get(f"{files}/project/{GROUP}/night.txt") as answer:
            assert await answer.text() == "seen from one node"

        async with session.put(f"{files}/home/cara/sent.txt", data=b"sent by VOSpace") as answer:
            assert answer.status in {200, 201}
        assert await cara.run("print(open('/home/cara/sent.txt').read())") == "sent by VOSpace"

        for attempt in (
            "open('/home/cara/sent.txt')",
            "open('/home/dan/../cara/sent.txt')",
            "open('/archive/new', 'w')",
            "open('/usr/new', 'w')",
            "open('/var/run/secrets/kubernetes.io/serviceaccount/token')",
        ):
            error = await dan.fails(attempt)
            assert error.split(":")[0] in {"FileNotFoundError", "PermissionError", "OSError"}, (attempt, error)


def test_the_chart_s_own_test_does_what_a_person_does(platform: Installation) -> None:
    said = platform.helm("test", platform.release, "--timeout", "300s", "--filter", f"name={platform.name}-canary")

    assert "Succeeded" in said
    printed = platform.kubectl("logs", f"{platform.name}-canary")
    for step in ("Signed in", "A server started", "A cell ran", "read by VOSpace", "The server stopped"):
        assert step in printed, printed
    assert "A person who comes now can work" in printed, printed


async def test_trial_sessions_on_a_schedule_reach_everything(platform: Installation) -> None:
    config = platform.values["config"] | {"canary": {"every_s": 60}}
    platform.apply(config=config)
    platform.wait()
    try:
        async with platform.person("cara") as cara:
            ended: list[str] = []

            async def tried() -> bool:
                async with cara.session.get(f"{cara.url}/services/portal/api/health") as answer:
                    # The portal from before may have the last word for a while: it knows of no trials.
                    state = (await answer.json())["parts"].get("canary", "waiting")
                    if state not in {"waiting", "running"}:
                        ended.append(state)
                    return bool(ended)

            await until("a trial session", tried, within_s=240)
            assert ended == ["ok"]
    finally:
        platform.apply()
        platform.wait()


async def test_kernels_go_on_while_every_part_is_deleted(platform: Installation) -> None:
    long = "import time\nfor second in range(40):\n    print(second, end=' ', flush=True)\n    time.sleep(1)"
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")
        running = asyncio.create_task(cara.run(long, within_s=120))
        for part in ("hub", "database", "portal", "passport"):
            await asyncio.to_thread(platform.delete, part)
        printed = await running

        # Nothing of what it printed meanwhile is missing: the connection was never cut.
        assert printed.split() == [str(second) for second in range(40)]
        await until("the platform", lambda: both(cara.person), within_s=180)

        platform.delete("proxy")
        await until("the proxy", lambda: both(cara.person), within_s=60)
        took = await until("the server behind the new proxy", lambda: answers(cara), within_s=30)
        say(f"proxy deleted: the server answered {took:.1f} s after the platform did")
        assert await cara.run("print(kept + 1)") == "42"


async def test_kernels_go_on_over_an_upgrade_and_a_rollback(platform: Installation) -> None:
    config = platform.values["config"] | {"name": {"en": "Other Sky", "zh": "另一片天空"}}
    async with working(platform, "cara") as cara:
        await cara.run("kept = 41")

        platform.apply(config=config)
        platform.wait()
        await until("the server after the upgrade", lambda: answers(cara))
        assert await cara.run("kept += 1; print(kept)") == "42"

        platform.helm("rollback", platform.release)
        platform.wait()
        await until("the server after the rollback", lambda: answers(cara))
        assert await cara.run("print(kept)") == "42"
