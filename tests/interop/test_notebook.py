"""A notebook in a person's own server, and VOSpace: one tree, the same permissions by either door."""

from pathlib import Path

import pytest

from tests.interop.platform import PASSWORD, Inhabited
from tests.services.vospace.platform import CORE, Space
from tests.support.person import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WRITES = """
import os
open('/home/ada/nb.txt', 'w').write('from the notebook')
os.makedirs('/project/team/d')
open('/project/team/d/shared.txt', 'w').write('for the team')
open('/project/team/own.txt', 'w').write('mine'); os.chmod('/project/team/own.txt', 0o600)
os.symlink('/home/bob/secret', '/home/ada/link')
print('written')
"""
READS = """
import os
print(open('/home/ada/up.txt').read())
with open('/project/team/d/by-bob.txt', 'a') as f: f.write(' and ada')
print(open('/project/team/d/shared.txt').read())
os.rename('/project/team/d/made', '/project/team/d/renamed')
for path in ('/home/bob', '/home/bob/secret', '/home/eve'):
    try: os.listdir(path) if path != '/home/bob/secret' else open(path).read()
    except OSError as err: print('refused', type(err).__name__)
"""


async def test_a_notebook_and_vospace_agree(inhabited: Inhabited, space: Space, astro_python: Path) -> None:
    assert astro_python.exists()  # made before the server asks for it
    bob, eve = space.as_("bob"), space.as_("eve")
    async with Person(space.url, "ada", PASSWORD) as ada:
        assert (await ada.sign_in())[0] == 200
        await ada.start_server()
        base = await ada.enter_server()
        kernel = await ada.start_kernel(base)
        done = await ada.run_cell(base, kernel, WRITES)
        assert done["text"].strip() == "written", done

        # What a notebook writes is there at once, for whom it lets in and for nobody else.
        assert "nb.txt" in (await space.node("/home/ada")).names
        assert (await space.get("/files/home/ada/nb.txt")).body == b"from the notebook"
        assert (await bob.get("/files/home/ada/nb.txt")).status == 403
        assert (await bob.get("/files/project/team/d/shared.txt")).body == b"for the team"
        assert (await eve.get("/files/project/team/d/shared.txt")).status == 403
        assert (await bob.get("/files/project/team/own.txt")).status == 403
        assert (await bob.node("/project/team/own.txt")).status == 403
        assert "own.txt" not in (await bob.node("/project/team")).names
        assert (await bob.upload("/home/bob/secret", b"bob's")).status == 201
        assert (await space.get("/files/home/ada/link")).status in {400, 403}

        # The umask of servers and what VOSpace gives new files are the same: the group may write either.
        assert (await bob.upload("/project/team/d/shared.txt", b"changed by bob")).status == 200
        assert (await bob.upload("/project/team/d/by-bob.txt", b"by bob")).status == 201
        assert (await bob.mkdir("/project/team/d/made")).status == 201
        assert (await space.upload("/home/ada/up.txt", b"from outside")).status == 201
        team = inhabited.people["ada"].groups["team"]
        for name in ("d", "d/shared.txt", "d/by-bob.txt", "d/made"):
            status = space.posix(f"/project/team/{name}").stat()
            assert status.st_gid == team, name
            assert status.st_mode & 0o067 == 0o060, name
        properties = (await space.node("/project/team/d/shared.txt")).properties
        assert properties[CORE + "groupwrite"].endswith("team")
        assert properties[CORE + "ispublic"] == "false"

        done = await ada.run_cell(base, kernel, READS)
        lines = done["text"].split("\n")
        assert lines[:2] == ["from outside", "changed by bob"], done
        assert [line.split()[0] for line in lines[2:5]] == ["refused"] * 3, done
        assert space.posix("/project/team/d/by-bob.txt").read_bytes() == b"by bob and ada"
        assert "renamed" in (await bob.node("/project/team/d")).names

        # What is taken back by one door is gone by the other.
        code = "import os; os.chmod('/project/team/d/shared.txt', 0o600)"
        assert not (await ada.run_cell(base, kernel, code))["error"]
        assert (await bob.get("/files/project/team/d/shared.txt")).status == 403
        assert (await space.set("/home/ada/nb.txt", {"ispublic": "true"})).status == 200
        done = await ada.run_cell(base, kernel, "import os; print(oct(os.stat('/home/ada/nb.txt').st_mode & 0o007))")
        assert done["text"].strip() == "0o4"
