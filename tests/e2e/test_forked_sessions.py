"""Real servers and kernels that were forked: as personal as if each had been started for its person."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.cast import needs_root
from tests.support.looping import Run
from tests.support.person import Person
from tests.support.platform import Platform, wait_until

pytestmark = [needs_root, pytest.mark.slow]
PASSWORD = "forked-twice-1967"
NAMES = ("fay", "fin")


REMEMBERED = """
import sys
from traitlets import TraitType
parent, found = "-of-the-" + "parent", set()
for name, module in list(sys.modules.items()):
    if name in {"__main__", "astrocloud_lab.forked.homes"}:
        continue
    for key, value in list(getattr(module, "__dict__", {}).items()):
        if isinstance(value, (str, list, tuple, dict)) and parent in str(value):
            found.add(f"{name}.{key}")
        elif isinstance(value, type):
            for inner, held in list(vars(value).items()):
                held = held.default_value if isinstance(held, TraitType) else held
                if isinstance(held, (str, list, tuple, dict)) and parent in str(held):
                    found.add(f"{name}.{key}.{inner}")
print(sorted(found))
"""


@dataclass
class Forked:
    """People whose servers were forked, with a kernel each."""

    platform: Platform
    run: Run
    people: dict[str, Person] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    def base(self, name: str) -> str:
        return f"{self.platform.url}/user/{name}/"

    def value(self, expression: str, *, who: str = NAMES[0]) -> Any:
        """Return what `expression` is in a person's kernel."""
        code = f"import json as _json; print(_json.dumps({expression}))"
        answer = self.run(self.people[who].run_cell(self.base(who), self.kernels[who], code))
        assert not answer["error"], answer
        return json.loads(answer["text"])

    def cell(self, code: str, *, who: str = NAMES[0]) -> str:
        answer = self.run(self.people[who].run_cell(self.base(who), self.kernels[who], code))
        assert not answer["error"], answer
        return str(answer["text"]).strip()

    def start(self, name: str, **options: str) -> None:
        person = self.people[name]
        self.run(person.start_server(**options))
        self.run(person.enter_server())
        self.kernels[name] = self.run(person.start_kernel(self.base(name)))

    def stop(self, name: str) -> None:
        status, answer = self.run(self.people[name].hub_api("DELETE", f"/users/{name}/server"))
        assert status in {202, 204}, answer
        wait_until(lambda: self._stopped(name), within_s=30, what="the server to stop")

    def _stopped(self, name: str) -> bool:
        _status, model = self.run(self.people[name].hub_api("GET", f"/users/{name}"))
        return not model["servers"]

    def starts(self, name: str) -> list[bool]:
        """Tell of each start of a person's server whether it was forked."""
        lines = (self.platform.data / "logs" / "hub.log").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and '"server-started"' in line]
        return [event["forked"] for event in events if event["user"] == name]


@pytest.fixture(scope="module")
def forked(platform: Platform, run: Run) -> Iterator[Forked]:
    """Two people with forked servers."""
    log = platform.data / "logs" / "parent-astro.log"
    wait_until(
        lambda: log.exists() and "ready to fork" in log.read_text(encoding="utf-8"),
        within_s=120,
        what="servers can be forked",
    )
    made = Forked(platform, run)
    try:
        for name in NAMES:
            platform.add(name, PASSWORD)
            made.people[name] = run(Person(platform.url, name, PASSWORD).__aenter__())
            run(made.people[name].sign_in())
        made.start(NAMES[0], resources="medium")
        made.start(NAMES[1])
        yield made
        for name in NAMES:
            made.stop(name)
    finally:
        for person in made.people.values():
            run(person.__aexit__())


def test_server_and_kernel_come_with_everything_imported(forked: Forked) -> None:
    assert [forked.starts(name) for name in NAMES] == [[True], [True]]
    modules = ["numpy", "astropy.wcs", "matplotlib.pyplot", "jupyter_server.serverapp"]
    assert forked.value(f"[name in __import__('sys').modules for name in {modules}]") == [True] * 4


def test_no_two_draw_the_same_numbers(forked: Forked) -> None:
    code = (
        "import json, random, secrets, uuid, tempfile, numpy; print(json.dumps([random.random(),"
        " numpy.random.random(), numpy.random.default_rng().random(), secrets.token_hex(), uuid.uuid4().hex,"
        " tempfile.mktemp()]))"
    )
    first = json.loads(forked.cell(code, who=NAMES[0]))
    second = json.loads(forked.cell(code, who=NAMES[1]))
    again = forked.run(forked.people[NAMES[0]].start_kernel(forked.base(NAMES[0])))
    answer = forked.run(forked.people[NAMES[0]].run_cell(forked.base(NAMES[0]), again, code))
    third = json.loads(answer["text"])
    for one, two, three in zip(first, second, third, strict=True):
        assert len({one, two, three}) == 3


def test_folders_are_the_persons_own(forked: Forked) -> None:
    code = (
        "import os, json, site, tempfile, matplotlib, astropy.config, jupyter_core.paths; print(json.dumps(["
        "matplotlib.get_configdir(), matplotlib.get_cachedir(), str(astropy.config.get_config_dir()),"
        " jupyter_core.paths.jupyter_data_dir(), site.getusersitepackages(), os.getcwd(), os.path.expanduser('~')]))"
    )
    for name in NAMES:
        for folder in json.loads(forked.cell(code, who=name)):
            assert folder.startswith(f"/home/{name}"), folder
    assert forked.value("__import__('tempfile').gettempdir()") == "/tmp"


def test_nothing_remembers_the_parents_home_or_name(forked: Forked) -> None:
    assert forked.cell(REMEMBERED) == "[]"


def test_linear_algebra_uses_the_processors_of_the_choice(forked: Forked) -> None:
    code = (
        "import ctypes, glob, os, numpy; path, = glob.glob(os.path.dirname(numpy.__file__) + '.libs/*openblas*');"
        " library = ctypes.CDLL(path); print(os.environ['OPENBLAS_NUM_THREADS'],"
        " library.scipy_openblas_get_num_threads64_()); a = numpy.random.random((300, 300)); b = a @ a"
    )
    wanted, used = forked.cell(code).split()
    assert wanted == used
    assert forked.value("__import__('os').environ['OPENBLAS_NUM_THREADS']", who=NAMES[1]) == "1"


def test_plots_are_shown_in_the_notebook(forked: Forked) -> None:
    assert "Figure" in forked.cell("import matplotlib.pyplot as plt; plt.plot([1, 4, 2]); plt.show()")


def test_a_persons_own_settings_are_read(forked: Forked) -> None:
    folder = forked.platform.data / "tree" / "home" / NAMES[1] / ".config" / "matplotlib"
    forked.cell("import os; os.makedirs(os.path.expanduser('~/.config/matplotlib'), exist_ok=True)", who=NAMES[1])
    (folder / "matplotlibrc").write_text("lines.linewidth: 7\n", encoding="utf-8")
    forked.stop(NAMES[1])
    forked.start(NAMES[1])
    assert forked.starts(NAMES[1])[-1] is True
    assert forked.cell("import matplotlib; print(matplotlib.rcParams['lines.linewidth'])", who=NAMES[1]) == "7.0"


def test_out_of_memory_ends_the_kernel_and_not_the_server(forked: Forked) -> None:
    person, base = forked.people[NAMES[1]], forked.base(NAMES[1])
    kernel = forked.run(person.start_kernel(base))
    with pytest.raises(TimeoutError):  # it dies, and says nothing any more
        forked.run(person.run_cell(base, kernel, "kept = [bytearray(2**26) for _ in range(64)]", within_s=15))
    assert forked.cell("print(6 * 7)", who=NAMES[1]) == "42"
