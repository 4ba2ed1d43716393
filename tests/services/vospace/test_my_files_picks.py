"""What is picked in a list of My files: downloaded as one archive, worked on, looked for where it is to go."""

import zipfile
from io import BytesIO
from typing import Any

from tests.services.vospace.platform import Space
from tests.services.vospace.test_my_files import ask, load, post


async def packed(space: Space, /, **picks: Any) -> dict[str, bytes]:
    """Download what is picked as one archive; return its files by name."""
    answer = await post(space, "/archive", **picks)
    assert answer.status == 201, answer.text
    found = await space.get(load(answer)["url"].removeprefix("/services/vospace"))
    assert (found.status, found.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(BytesIO(found.body)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


async def test_just_what_is_picked_is_downloaded_as_one_archive(space: Space) -> None:
    for who in ("ada", "bob"):
        await space.as_(who).mkdir(f"/home/{who}")
    for name in ("d", "d/e"):
        space.make(f"/home/ada/{name}")
    for name in ("a1", "a2", "b1", "b c", ".hidden", "d/a3", "d/e/a4", "d/e/x"):
        space.write(f"/home/ada/{name}", name.encode())
    # Positions are of the list that was picked from: what it left out is not packed.
    view = (await ask(space, "/list", path="/home/ada", q="a"))["view"]
    assert sorted(await packed(space, view=view, but=[])) == ["ada/a1", "ada/a2"]
    view = (await ask(space, "/list", path="/home/ada"))["view"]
    assert sorted(await packed(space, view=view, but=[0, 1])) == ["ada/a2", "ada/b c", "ada/b1"]
    assert await packed(space, view=view, picks=[1, 4]) == {"ada/a1": b"a1", "ada/b c": b"b c"}
    assert sorted(await packed(space, view=view, picks=[0])) == ["ada/d/a3", "ada/d/e/a4", "ada/d/e/x"]
    # What a search found lies in many folders, what others share in many homes.
    paths = ["/home/ada/a1", "/home/ada/d/a3", "/home/ada/d/e/a4"]
    assert sorted(await packed(space, paths=paths)) == ["ada/a1", "ada/d/a3", "ada/d/e/a4"]
    space.write("/home/bob/for ada", b"bob's", who="bob")
    space.write("/home/bob/private", who="bob", mode=0o600)
    space.posix("/home/bob").chmod(0o711)
    picks = ["/home/ada/b%20c", "/home/bob/for%20ada", "/home/bob/private"]
    assert sorted(await packed(space, paths=picks)) == ["home/ada/b c", "home/bob/for ada"]
    space.write("/project/team/t")
    assert sorted(await packed(space, paths=[*picks, "/project/team/t"]))[-1] == "files/project/team/t"


async def test_an_archive_is_for_who_picked_it_and_a_list_that_is_gone_is_told(space: Space) -> None:
    await space.mkdir("/home/ada")
    space.write("/home/ada/a")
    url = load(await post(space, "/archive", paths=["/home/ada/a"]))["url"].removeprefix("/services/vospace")
    for who, status in (("bob", 404), ("ada", 200), ("ada", 404)):
        assert (await space.as_(who).get(url)).status == status, who
    for picks, code in (
        ({"view": "gone", "but": []}, "files-view-gone"),
        ({"paths": []}, "vospace-invalid-argument"),
        ({"paths": [1]}, "vospace-invalid-argument"),
    ):
        assert load(await post(space, "/archive", **picks))["code"] == code
    many = await packed(space, paths=["/home/ada/a", *(f"/home/ada/{n:0200}" for n in range(5000))])
    assert many == {"ada/a": b"x"}
