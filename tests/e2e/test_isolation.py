"""What a person's code reaches from inside their real server, through the whole platform: nothing of anybody else's.

`tests/hub/test_isolation.py` tries the walls themselves on a hub alone; here it is what lies behind them: other
people's files and servers, the platform's secrets, the hub and the services on the machine's shared loopback address.
"""

import json
import os
import textwrap
from urllib.parse import urlsplit

import aiohttp
import pytest

from astrocloud.core.runtime import SERVICES
from tests.e2e.cast import ADMIN, GROUP, MEMBER, OTHER, OWNER, Cast, needs_root
from tests.support.platform import Addresses, wait_until

pytestmark = [needs_root, pytest.mark.slow]

ASK = """
    import json, os, ssl, urllib.error, urllib.request
    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None
    # On a cluster the parts and people's servers speak TLS; who is up to no good checks nobody.
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        NoRedirect, urllib.request.ProxyHandler({{}}), urllib.request.HTTPSHandler(context=unchecked)
    )
    def ask(method, address, token=os.environ["JUPYTERHUB_API_TOKEN"], body=None):
        headers = {{"Authorization": f"Bearer {{token}}", "Content-Type": "application/json"}} if token else {{}}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, method=method, headers=headers, data=data)
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode("utf-8", "replace")
    {code}
"""


@pytest.fixture(scope="module")
def parts(cast: Cast) -> Addresses:
    """Where the parts listen, past the proxy."""
    return cast.platform.addresses


def asked(cast: Cast, method: str, address: str, *, body: object = None, token: str = "") -> tuple[int, str]:
    """Return status and body of what the owner's kernel gets from `address`, with its server's own token."""
    arguments = f"{method!r}, {address!r}, body={body!r}" + (f", token={token!r}" if token else "")
    code = textwrap.dedent(ASK).format(code=f"print(json.dumps(ask({arguments})))")
    status, text = json.loads(cast.cell(code))
    return int(status), str(text)


def test_another_persons_home_and_projects_are_not_there(cast: Cast) -> None:
    assert cast.cell("open('/home/rowan/mine', 'w').write('mine')", who=OWNER) == "4"
    for path in (f"/home/{OWNER}", f"/home/{OWNER}/mine", f"/project/{GROUP}"):
        assert cast.cell(f"import os; os.stat({path!r})", who=OTHER).startswith("!FileNotFoundError")
    assert cast.cell("import os; print(os.listdir('/home'), os.listdir('/project'))", who=OTHER) == "['otto'] []"


def test_a_groups_project_is_its_members_own(cast: Cast) -> None:
    code = f"open('/project/{GROUP}/note', 'w').write('ours'); import os; print(os.stat('/project/{GROUP}').st_gid)"
    assert cast.cell(code).splitlines()[-1] == str((cast.platform.data / "tree" / "project" / GROUP).stat().st_gid)


def test_the_platforms_own_folders_are_not_there(cast: Cast) -> None:
    for name in ("secrets", "db", "run", "logs", "tree", "."):
        path = str(cast.platform.data / name)
        assert cast.cell(f"import os; os.listdir({path!r})").startswith("!FileNotFoundError"), name


def test_no_process_but_ones_own_is_there(cast: Cast) -> None:
    code = (
        "import os; print(*sorted({os.stat(f'/proc/{p}').st_uid for p in os.listdir('/proc') if p.isdigit()}),"
        " os.getuid())"
    )
    seen, own = cast.cell(code).split()
    assert seen == own
    others = [cast.platform.part(name) for name in ("hub", "proxy", "services")]
    for pid in [*others, cast.platform.server_process(OTHER)]:
        for what in ("environ", "cmdline", "maps", "mem", "root", "fd"):
            assert cast.cell(f"open('/proc/{pid}/{what}', 'rb').read(1)").startswith("!FileNotFoundError"), what
        assert cast.cell(f"import os; os.kill({pid}, 0)").startswith("!ProcessLookupError")


def test_nothing_of_the_platform_shows_in_any_command_line(cast: Cast) -> None:
    """Without walls, people would see the machine's processes: no secret may be there at all."""
    secrets = list(cast.platform.secrets().values())
    secrets.append(cast.cell("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])"))
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
                line = file.read()
        except OSError:
            continue
        assert not [secret for secret in secrets if secret and secret in line], line[:80]


@pytest.mark.parametrize("path", ["/archive/x", "/course/x", "/tutorials/x", "{environment}/x", "{environment}/bin/x"])
def test_what_is_shared_cannot_be_written(cast: Cast, path: str) -> None:
    environment = cast.cell("import sys; print(sys.prefix)")
    told = cast.cell(f"open({path.format(environment=environment)!r}, 'w')")
    assert told.startswith(("!OSError", "!PermissionError")), told


@pytest.mark.parametrize(
    ("method", "path", "body", "refused"),
    [
        ("GET", "/users", None, 403),
        ("GET", f"/users/{OTHER}", None, 404),
        ("GET", f"/users/{OTHER}/server/progress", None, 403),
        ("POST", f"/users/{OTHER}/server", {}, 403),
        ("DELETE", f"/users/{OTHER}/server", None, 403),
        ("POST", f"/users/{OWNER}/servers/more", {}, 403),
        ("DELETE", f"/users/{OWNER}/server", None, 403),
        ("GET", f"/users/{OWNER}/tokens", None, 403),
        ("POST", f"/users/{OWNER}/tokens", {}, 403),
        ("POST", f"/users/{OTHER}/tokens", {}, 403),
        ("POST", f"/users/{OTHER}/activity", {"last_activity": "2030-01-01T00:00:00Z"}, 404),
        ("PATCH", f"/users/{OWNER}", {"admin": True}, 403),
        ("POST", "/users", {"usernames": ["more"], "admin": True}, 403),
        ("GET", "/groups", None, 403),
        ("GET", f"/groups/{GROUP}", None, 403),
        ("GET", "/proxy", None, 403),
        ("GET", "/services", None, 403),
        ("POST", "/shutdown", {}, 403),
        ("POST", f"/shares/{OWNER}/", {"user": OTHER}, 403),
    ],
)
def test_the_servers_token_opens_nothing_more_at_the_hub(
    cast: Cast, parts: Addresses, method: str, path: str, body: object, refused: int
) -> None:
    # Straight at the hub's own port, as nothing keeps code in a server from trying, and by the front door.
    for base in (parts.hub_api, f"{cast.platform.url}/hub/api"):
        status, said = asked(cast, method, base + path, body=body)
        assert status == refused, (base, said)


def test_the_servers_token_knows_its_owner_and_nothing_secret(cast: Cast, parts: Addresses) -> None:
    status, said = asked(cast, "GET", f"{parts.hub_api}/user")
    assert status == 200
    model = json.loads(said)
    assert model["name"] == OWNER
    assert not {"auth_state", "state", "servers"} & set(model)
    assert set(model["scopes"]) <= {
        f"access:servers!server={OWNER}/",
        f"users:activity!user={OWNER}",
        f"read:users:activity!user={OWNER}",
        f"read:users:name!user={OWNER}",
        f"read:users:groups!user={OWNER}",
        f"custom:vospace:read!user={OWNER}",
        f"custom:vospace:write!user={OWNER}",
    }


@pytest.mark.parametrize("service", SERVICES)
def test_the_servers_token_is_no_way_into_a_service(cast: Cast, parts: Addresses, service: str) -> None:
    path = {
        "portal": "/services/portal/home",
        "passport": "/services/passport/people",
        # There it is its owner's, for files: not anybody else's.
        "vospace": f"/services/vospace/files/home/{OTHER}/x",
    }[service]
    status, said = asked(cast, "GET", parts.services[service] + path)
    assert status == 403, said


def test_the_token_of_an_administrators_server_is_no_administrator(cast: Cast, parts: Addresses) -> None:
    status, made = cast.run(_server_like_token(cast, ADMIN))
    assert status == 201, made
    for path in ("/services/portal/home", "/services/portal/admin/servers", "/services/portal/admin/announcements"):
        got, said = asked(cast, "GET", parts.services["portal"] + path, token=made["token"])
        assert got == 403, (path, said[:200])


async def _server_like_token(cast: Cast, name: str) -> tuple[int, dict[str, str]]:
    # What the hub gives to a server: see SERVER_SCOPES. Made here instead of starting one more server.
    scopes = ["users:activity!user", "custom:vospace:read!user", "custom:vospace:write!user"]
    return await cast.people[name].hub_api("POST", f"/users/{name}/tokens", {"scopes": scopes, "expires_in": 600})


@pytest.mark.parametrize("secret", ["", "guess", "server"])
def test_the_internal_api_wants_the_platforms_secret(cast: Cast, parts: Addresses, secret: str) -> None:
    token = cast.cell("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])") if secret == "server" else secret or "-"
    body = {"issuer": f"{cast.platform.url}/services/passport", "subject": ADMIN, "claims": {}}
    for base in (parts.services["passport"], cast.platform.url):
        status, _ = asked(cast, "POST", f"{base}/services/passport/api/internal/sign-in", body=body, token=token)
        assert status == 401
        status, _ = asked(cast, "GET", f"{base}/services/passport/api/internal/people/{ADMIN}", token=token)
        assert status == 401


def test_the_proxys_own_api_wants_its_token(cast: Cast, parts: Addresses) -> None:
    for method, body in (("GET", None), ("POST", {"target": "http://127.0.0.1:1"})):
        assert asked(cast, method, f"{parts.proxy_api}/api/routes", body=body)[0] == 403


def test_another_persons_server_refuses(cast: Cast) -> None:
    kernel = cast.kernels[OTHER]
    for base in (cast.platform.server_url(OTHER), cast.platform.url):
        for method, path in (
            ("GET", "api/kernels"),
            ("GET", f"api/contents/home/{OTHER}"),
            ("POST", "api/terminals"),
            ("DELETE", f"api/kernels/{kernel}"),
            ("GET", f"api/kernels/{kernel}/channels"),
            ("GET", "api/me"),
        ):
            status, said = asked(cast, method, f"{base}/user/{OTHER}/{path}")
            assert status == 403, (base, path, said[:200])
    assert cast.cell("print(6 * 7)", who=OTHER) == "42"


def test_another_persons_page_in_the_browser_refuses(cast: Cast) -> None:
    async def opened(name: str) -> int:
        person = cast.people[name]
        async with person.session.get(f"{cast.bases[OWNER]}api/contents/home/{OWNER}") as answer:
            return answer.status

    assert cast.run(opened(OWNER)) == 200
    # 404 and 403: the hub does not tell others whether there is such a person.
    assert {cast.run(opened(name)) for name in (OTHER, MEMBER)} <= {403, 404}


def test_kernels_listen_on_no_port_of_the_machine(cast: Cast) -> None:
    """The loopback address is everybody's: a kernel there would be one guessed key away from the others."""
    code = (
        "import os\n"
        "held = {}\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try:\n"
        "        command = open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' ')\n"
        "        held |= {os.readlink(f'/proc/{pid}/fd/{fd}'): command for fd in os.listdir(f'/proc/{pid}/fd')}\n"
        "    except OSError:\n"
        "        pass\n"
        "lines = [line.split() for table in ('tcp', 'tcp6') for line in open(f'/proc/net/{table}').readlines()[1:]]\n"
        "listening = {int(f[1].split(':')[1], 16): held.get(f'socket:[{f[9]}]') for f in lines if f[3] == '0A'}\n"
        "import json; print(json.dumps({port: command for port, command in listening.items() if command}))"
    )
    found = json.loads(cast.cell(code))
    assert found.keys() == {str(urlsplit(cast.platform.server_url(OWNER)).port)}, found


def test_another_persons_sockets_of_kernels_are_not_there(cast: Cast) -> None:
    found = "import ipykernel.connect as c, os; print(os.path.dirname(c.get_connection_file()))"
    runtime_folder = cast.cell(found)
    assert runtime_folder.startswith("/"), runtime_folder
    assert cast.cell(f"import os; print(len(os.listdir({runtime_folder!r})) > 0)") == "True"
    if OWNER in runtime_folder:
        assert cast.cell(f"import os; os.listdir({runtime_folder!r})", who=OTHER).startswith("!FileNotFoundError")
    # Where each has a /tmp of their own, the folder has the same name and holds other kernels.
    listed = f"import os; print(*(name for name in os.listdir({runtime_folder!r}) if name.startswith('kernel-')))"
    names, elsewhere = cast.cell(listed).split(), cast.cell(listed, who=OTHER).split()
    assert names
    assert not set(names) & set(elsewhere)
    # Sockets with names outside of the file system would be seen by everybody on the machine.
    abstract = "print(sum(' @' in line and 'kernel' in line for line in open('/proc/net/unix')))"
    assert cast.cell(abstract) == "0"


def test_a_link_to_the_outside_leads_nowhere_through_the_file_browser(cast: Cast) -> None:
    target = str(cast.platform.data / "secrets" / "internal")
    cast.cell(f"import os; os.path.lexists('/home/{OWNER}/door') or os.symlink({target!r}, '/home/{OWNER}/door')")
    base = cast.bases[OWNER]
    for path in (f"api/contents/home/{OWNER}/door", f"files/home/{OWNER}/door", f"api/contents{target}"):
        status, said = cast.run(cast.people[OWNER].server_api(base, "GET", path))
        assert status in {400, 403, 404}, (path, said)


def test_the_file_browser_shows_only_the_file_tree(cast: Cast) -> None:
    status, listing = cast.run(cast.people[OWNER].server_api(cast.bases[OWNER], "GET", "api/contents/"))
    assert status == 200
    assert {entry["name"] for entry in listing["content"]} <= {
        "home",
        "project",
        "archive",
        "course",
        "tutorials",
        "tmp",
    }


def test_a_server_that_has_ended_leaves_a_token_that_opens_nothing(cast: Cast) -> None:
    person, base = cast.people[MEMBER], ""

    async def take() -> str:
        nonlocal base
        await person.start_server("brief")
        base = await person.enter_server("brief")
        kernel = await person.start_kernel(base)
        told = await person.run_cell(base, kernel, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
        status, _ = await person.hub_api("DELETE", f"/users/{MEMBER}/servers/brief")
        assert status in {202, 204}
        return str(told["text"]).strip()

    async def status_of(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        # Without cookies: the hub takes those where a token is worth nothing.
        async with aiohttp.request("GET", f"{cast.platform.url}/hub/api/user", headers=headers) as answer:
            return answer.status

    token = cast.run(take())
    wait_until(lambda: cast.run(status_of(token)) == 403, within_s=20, what="the server's token to be worth nothing")
