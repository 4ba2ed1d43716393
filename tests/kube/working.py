"""People at work on an installed platform: each with a server, and a kernel in it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from tests.kube.installation import Installation, until
from tests.support.person import Person


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A person with a server and a kernel in it."""

    person: Person
    node: str
    base: str
    kernel: str

    async def run(self, code: str, *, within_s: float = 60) -> str:
        """Return what `code` prints in the kernel; it raises nothing."""
        done = await self.person.run_cell(self.base, self.kernel, code, within_s=within_s)
        assert not done["error"], done
        text: str = done["text"]
        return text.strip()

    async def fails(self, code: str) -> str:
        """Return the error that `code` ends with."""
        done = await self.person.run_cell(self.base, self.kernel, code)
        return str(done["error"])


def node_of(platform: Installation, name: str) -> str:
    pods = platform.kube.get("pods", "-n", platform.namespace_of(name))["items"]
    return str(next(pod["spec"]["nodeName"] for pod in pods if "deletionTimestamp" not in pod["metadata"]))


@asynccontextmanager
async def working(platform: Installation, name: str, *, environment: str = "astro") -> AsyncIterator[Worker]:
    async with platform.person(name) as person:
        assert (await person.sign_in())[0] == 200
        await person.start_server(environment=environment)
        base = await person.enter_server()
        kernel = await person.start_kernel(base)
        try:
            yield Worker(person=person, node=node_of(platform, name), base=base, kernel=kernel)
        finally:
            await until("the hub, to stop the server", lambda: told_to_stop(person))
            await until("the end of the server", lambda: gone(platform, name))


async def events_page(platform: Installation) -> str:
    """Return what an administrator reads of events."""
    platform.add("chief", admin=True)
    async with platform.person("chief") as chief:
        assert (await chief.sign_in())[0] == 200
        async with chief.session.get(f"{chief.url}/services/portal/admin/events") as answer:
            assert answer.status == 200
            return await answer.text()


async def told_to_stop(person: Person) -> bool:
    """Tell the hub to stop a person's server; whether it has heard it, which one that starts has not."""
    status, _ = await person.hub_api("DELETE", f"/users/{person.username}/server")
    return status < 500


async def gone(platform: Installation, name: str) -> bool:
    return not platform.kube.get("pods", "-n", platform.namespace_of(name))["items"]


@contextmanager
def only_on(platform: Installation, node: str) -> Iterator[None]:
    """Send new pods to `node` alone meanwhile."""
    others = [name for name in nodes_of(platform) if name != node]
    platform.kube.kubectl("cordon", *others)
    try:
        yield
    finally:
        platform.kube.kubectl("uncordon", *others)


def nodes_of(platform: Installation) -> list[str]:
    """Return the nodes' names; the platform's address is at the first."""
    return [each["metadata"]["name"] for each in platform.kube.get("nodes")["items"]]


@asynccontextmanager
async def two_at_work(platform: Installation, *, other: int = 1) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two people with servers on the first node and another one, by default the second."""
    nodes = nodes_of(platform)
    async with AsyncExitStack() as stack:
        with only_on(platform, nodes[0]):
            cara = await stack.enter_async_context(working(platform, "cara"))
        with only_on(platform, nodes[other]):
            dan = await stack.enter_async_context(working(platform, "dan"))
        yield cara, dan


async def answers(worker: Worker) -> bool:
    status, _ = await worker.person.server_api(worker.base, "GET", f"api/kernels/{worker.kernel}")
    return status == 200
