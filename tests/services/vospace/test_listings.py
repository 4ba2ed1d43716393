"""A listing says of each child what the child itself says, and of no other, whoever asks and whatever its detail."""

import os
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pytest

from astrocloud.vospace import acl
from tests.services.vospace.platform import CORE, TEAM, VOS, Space

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to people needs root")
NAMES = ("plain", "a&b.fits", "it's", "two words.tar.gz", "\N{LATIN SMALL LETTER E WITH ACUTE}", 'a<b>"c"', "100%")


def _properties(node: ElementTree.Element) -> dict[str, str]:
    return {p.get("uri", ""): p.text or "" for p in node.findall(f"{VOS}properties/{VOS}property")}


def _shared(number: int) -> acl.Acl:
    """Somebody may read, by their own entry or the team's, or may not, all others being let in."""
    return [
        acl.Acl(6, 0, 0, {20003: 4}),
        acl.Acl(6, 0, 0, {}, {TEAM: 4}),
        acl.Acl(6, 4, 4, {20003: 0}),
        acl.Acl(6, 0, 4, {20002: 4}, {TEAM: 0}),
    ][number]


async def _fill(space: Space) -> None:
    space.posix("/home/ada").chmod(0o755)
    folder = space.make("/home/ada/mixed", mode=0o777)
    for who in ("ada", "bob"):
        for mode in (0o600, 0o640, 0o644, 0o604, 0o060, 0o000):
            space.write(f"/home/ada/mixed/{who}-{mode:o}.fits", who=who, mode=mode)
            space.make(f"/home/ada/mixed/{who}-{mode:o}", who=who, mode=mode | (mode >> 2) & 0o111)
        for number in range(4):
            file = space.write(f"/home/ada/mixed/{who}-shared-{number}", who=who)
            os.setxattr(file, acl.ACCESS, _shared(number).encode())
    for name in NAMES:
        space.write(f"/home/ada/mixed/{name}")
    (folder / os.fsdecode(b"not\xffutf-8")).touch()
    (folder / "bell\a").touch()
    (folder / "away").symlink_to("/home/bob/<secret>")
    os.mkfifo(folder / "pipe")
    await space.upload("/home/ada/mixed/summed.vot", b"bytes")
    await space.set("/home/ada/mixed/summed.vot", {"title": 'a <b> & "c"', f"{CORE}type": "text/x-own"})


@root_only
@pytest.mark.parametrize("who", ["ada", "bob", "eve", None])
async def test_listing_agrees_with_its_children(space: Space, who: str | None) -> None:
    await space.node("/home/ada")
    await _fill(space)
    reader = space.as_(who)
    listed = {detail: await reader.node("/home/ada/mixed", f"?detail={detail}") for detail in ("min", "max")}
    assert listed["min"].children == listed["max"].children
    page = await reader.node("/home/ada/mixed", "?detail=min&limit=1000")
    assert page.children == listed["min"].children
    seen = {unquote_to_bytes(name) for name in listed["max"].names}
    assert b"pipe" not in seen
    nodes = {unquote_to_bytes(n.get("uri", "").rsplit("/", 1)[1]): n for n in listed["max"].xml.iter(f"{VOS}node")}
    for name in map(os.fsencode, os.listdir(space.posix("/home/ada/mixed"))):
        if name == b"pipe":
            continue
        quoted = "".join(f"%{byte:02X}" for byte in name)
        alone = await reader.node(f"/home/ada/mixed/{quoted}", "?detail=max&limit=0")
        assert alone.status == (200 if name in seen else 403), name
        if name in seen:
            assert nodes[name].attrib == {key: alone.xml.attrib[key] for key in nodes[name].attrib}
            assert _properties(nodes[name]) == alone.properties
            assert nodes[name].findtext(f"{VOS}target") == alone.xml.findtext(f"{VOS}target")
