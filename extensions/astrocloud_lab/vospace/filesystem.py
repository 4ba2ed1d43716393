"""The filesystem: what fsspec asks for, by the requests of VOSpace 2.1 and its ``/files``."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import weakref
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from fsspec.asyn import AsyncFileSystem, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike, stringify_path, tokenize
from yarl import URL

from astrocloud_lab.tls import AUTHORITY_FILE
from astrocloud_lab.vospace import documents
from astrocloud_lab.vospace.client import CONNECTION_ERRORS, Body, Client
from astrocloud_lab.vospace.errors import EXISTS, LINK_FOUND, NO_FOLDER, error_of, fault_of
from astrocloud_lab.vospace.file import VOSpaceFile

URL_VARIABLE: Final = "ASTROCLOUD_VOSPACE_URL"
AUTHORITY_VARIABLE: Final = "ASTROCLOUD_VOSPACE"
TOKEN_VARIABLES: Final = ("ASTROCLOUD_TOKEN", "JUPYTERHUB_API_TOKEN")

_PAGE: Final = 10_000
_PIECE_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = 8 << 20
"""Up to here a copy goes through this program: two requests instead of a job."""
_LINK_LIMIT: Final = 16
_JOB_WAIT_S: Final = 30
_LONG_S: Final = 3600.0
"""How long the removal of a folder may take before it answers."""
_ENDED: Final = frozenset({"COMPLETED", "ERROR", "ABORTED"})


class VOSpaceFileSystem(AsyncFileSystem):
    """People's files by VOSpace 2.1.

    Listings are not kept: notebooks write to the same files past this.

    Parameters
    ----------
    endpoint
        The service's address, ``https://HOST/services/vospace``; in a person's server it is known.
    authority
        Authority and service in node URIs, ``astrocloud.local~vospace``; taken from addresses that have it.
    token
        A bearer token. Better left out: then it is the variable ``ASTROCLOUD_TOKEN`` or the server's own
        ``JUPYTERHUB_API_TOKEN``, read at each request, and goes into no pickle. Those are sent to the host of
        ``ASTROCLOUD_VOSPACE_URL`` only; another service gets what is given here, or nothing.
    auto_mkdir
        Whether a file's missing folders are made when it is written.
    retries
        How often a request is sent again when the service or the way to it failed.
    timeout_s
        Seconds without a byte after which a try has failed.

    Raises
    ------
    ValueError
        When no endpoint is given and none is known for this authority.
    """

    protocol = "vos"
    root_marker = "/"

    def __init__(
        self,
        endpoint: str | None = None,
        authority: str | None = None,
        token: str | None = None,
        *,
        auto_mkdir: bool = True,
        retries: int = 4,
        timeout_s: float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._authority = (authority or "").replace("!", "~") or None
        self.auto_mkdir = auto_mkdir
        address = _endpoint(endpoint, self._authority)
        self.client = Client(
            endpoint=address,
            token=lambda: token or _token(address),
            retries=retries,
            timeout_s=timeout_s,
            # The platform's own, which no public authority vouches for inside a cluster.
            authority=os.environ.get(AUTHORITY_FILE) if _is_own(address) else None,
        )
        if not self.asynchronous:
            weakref.finalize(self, self.client.close_in, self.loop)

    # Names

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return the path of an address; a plain path stays as it is, an address is percent-decoded."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(stringify_path(path))
        if text.startswith("vos:"):
            rest = text.removeprefix("vos:").removeprefix("//")
            head, _, tail = rest.partition("/")
            text = unquote(tail if _is_authority(head) else rest, errors="surrogateescape")
        return "/" + text.strip("/")

    def unstrip_protocol(self, name: str) -> str:
        """Return the whole address of a path."""
        authority = self._authority or os.environ.get(AUTHORITY_VARIABLE, "")
        return f"vos://{authority}{documents.quoted(self._strip_protocol(name))}"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        head = str(path).removeprefix("vos://").partition("/")[0]
        return {"authority": head.replace("!", "~")} if str(path).startswith("vos://") and _is_authority(head) else {}

    async def _uri(self, path: str) -> str:
        """Return the node URI of a path; the service is asked for its authority if nobody said it."""
        authority = self._authority or os.environ.get(AUTHORITY_VARIABLE)
        if not authority:
            parser = documents.NodeParser()
            list(parser.feed(await self.client.fetch("GET", "/nodes?detail=min&limit=0", path="/")))
            authority = urlsplit(parser.uri).netloc
        self._authority = authority
        return f"vos://{authority}{documents.quoted(path)}"

    # Looking

    async def _info(self, path: str, **_kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        root, _ = await self._node(path, limit=0)
        if root["type"] != "link":
            return root
        for _step in range(_LINK_LIMIT):
            try:
                found, _ = await self._node(documents.path_of_uri(root["target"]), limit=0)
            except FileNotFoundError:
                # A link that leads nowhere is there nevertheless.
                return {**root, "type": "other"}
            if found["type"] != "link":
                return {**found, "name": path, "islink": True, "target": root["target"]}
            root = {**root, "target": found["target"]}
        raise OSError(errno.ELOOP, "too many links lead to one another", path)

    async def _ls(self, path: str, detail: bool = True, **_kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        root, found = await self._node(path, limit=_PAGE)
        while root["type"] == "directory" and len(found) % _PAGE == 0 and found:
            # The page begins with the child that ended the one before.
            last = documents.quoted(found[-1]["name"])
            _, more = await self._node(path, limit=_PAGE + 1, start=last)
            fresh = more[1:] if more and more[0]["name"] == found[-1]["name"] else more
            if not fresh:
                break
            found += fresh
        if root["type"] == "link":
            target = await self._info(path)
            if target["type"] == "directory":
                inside = documents.path_of_uri(root["target"])
                found = [{**one, "name": path + one["name"][len(inside) :]} for one in await self._ls(inside)]
            else:
                found = [target]
        elif root["type"] != "directory":
            found = [root]
        return found if detail else [one["name"] for one in found]

    async def _node(
        self, path: str, *, limit: int, start: str | None = None, depth: int = 0
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return a node and up to `limit` of its children from `start` on, both named as if below `path`."""
        query = f"?detail=properties&limit={limit}"
        if start is not None:
            uri = await self._uri("/")
            query += "&uri=" + documents.quoted(uri.rstrip("/")).replace("&", "%26").replace("+", "%2B")
            query += start.replace("%", "%25").replace("&", "%26").replace("+", "%2B")
        parser = documents.NodeParser()
        found: list[dict[str, Any]] = []
        address = f"/nodes{documents.quoted(path.rstrip('/'))}{query}"
        try:
            async with self.client.send("GET", address, path=path) as response:
                async for data in response.content.iter_chunked(_PIECE_BYTES):
                    found += parser.feed(data)
        except CONNECTION_ERRORS:
            if depth >= _LINK_LIMIT:
                raise
            return await self._node(path, limit=limit, start=start, depth=depth + 4)
        except OSError as error:
            if fault_of(error) != LINK_FOUND or depth >= _LINK_LIMIT:
                raise
            inside = await self._behind_link(path)
            if start is not None:
                start = documents.quoted(inside) + start.removeprefix(documents.quoted(path))
            root, found = await self._node(inside, limit=limit, start=start, depth=depth + 1)
            renamed = [{**one, "name": path + one["name"][len(inside) :]} for one in found]
            return {**root, "name": path}, renamed
        if parser.root is None:
            raise OSError(errno.EIO, "the service answered with something else than a node", path)
        return parser.root, found

    async def _behind_link(self, path: str) -> str:
        """Return `path` with the first of its folders that is a link replaced by where that leads."""
        names = path.strip("/").split("/")
        for count in range(1, len(names)):
            above = "/" + "/".join(names[:count])
            root, _ = await self._node(above, limit=0)
            if root["type"] == "link":
                return posixpath.join(documents.path_of_uri(root["target"]), *names[count:])
        return path

    def checksum(self, path: str) -> str:
        """Return the MD5 of a file where the service knows it, else what changes whenever the file does."""
        found = self.info(path)
        return str(found.get("md5") or tokenize(found))

    def modified(self, path: str) -> datetime | None:
        """Return when a file was changed."""
        moment: datetime | None = self.info(path).get("mtime")
        return moment

    # Reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        if start is None and end is None:
            return (await self.read_range(path))[0]
        if (start or 0) < 0 or (end or 0) < 0:
            size = (await self._info(path))["size"]
            start = max(0, size + start) if start is not None and start < 0 else start
            end = size + end if end is not None and end < 0 else end
        return (await self.read_range(path, start or 0, end))[0]

    async def read_range(
        self, path: str, start: int = 0, end: int | None = None, tag: str | None = None
    ) -> tuple[bytes, str | None]:
        """Return bytes of a file and its entity tag.

        Parameters
        ----------
        start, end
            From where to before where.
        tag
            What the entity tag has to be.

        Raises
        ------
        OSError
            ``ESTALE`` when the file is not the one of `tag` any more.
        """
        if end is not None and end <= start:
            return b"", None
        whole = start == 0 and end is None
        headers = {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if tag:
            headers["If-Match"] = tag
        address = f"/files{documents.quoted(path)}"
        for left in range(3, -1, -1):
            try:
                allow = frozenset({412, 416})
                async with self.client.send("GET", address, path=path, headers=headers, allow=allow) as response:
                    if response.status == 416:
                        return b"", None
                    if response.status == 412:
                        raise OSError(errno.ESTALE, "the file was changed while it was read; open it again", path)
                    data = await response.read()
                    if response.status == 200 and not whole:
                        data = data[start:end]
                    return data, response.headers.get("ETag")
            except CONNECTION_ERRORS:
                if left == 0:
                    raise
        raise AssertionError("not reached")

    async def _get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_kwargs: Any) -> None:
        rpath = self._strip_protocol(rpath)
        if isfilelike(lpath):
            await self._receive(rpath, lpath, callback)
            return
        if (await self._info(rpath))["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)
            return
        folder = os.path.dirname(str(lpath))
        if folder:
            os.makedirs(folder, exist_ok=True)
        part = f"{lpath}.{secrets.token_hex(4)}.part"
        try:
            with open(part, "wb") as file:  # noqa: ASYNC230 - as fsspec's own filesystems do, in a loop of their own
                await self._receive(rpath, file, callback)
            os.replace(part, lpath)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    async def _receive(self, rpath: str, file: Any, callback: Any) -> None:
        """Write a file's bytes to `file`; after a broken connection go on where it broke."""
        got, tag = 0, None
        address = f"/files{documents.quoted(rpath)}"
        for left in range(4, -1, -1):
            headers: dict[str, str] = {"Range": f"bytes={got}-", "If-Match": tag} if got and tag else {}
            try:
                async with self.client.send("GET", address, path=rpath, headers=headers) as response:
                    if got and response.status == 200:
                        file.seek(file.tell() - got)
                        got = 0
                    tag = response.headers.get("ETag")
                    callback.set_size(got + (response.content_length or 0))
                    async for data in response.content.iter_chunked(_PIECE_BYTES):
                        file.write(data)
                        got += len(data)
                        callback.relative_update(len(data))
                return
            except CONNECTION_ERRORS:
                if left == 0 or (got and not tag):
                    raise

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> VOSpaceFile:
        return VOSpaceFile(
            self,
            path,
            mode,
            block_size=block_size or "default",
            autocommit=autocommit,
            cache_options=cache_options,
            **kwargs,
        )

    # Writing

    async def write_bytes(self, path: str, data: bytes, exclusive: bool = False) -> None:
        """Put `data` in a file's place as a whole, in a new file's only if `exclusive`."""
        await self._write(path, data, len(data), exclusive=exclusive)

    async def put_stream(self, path: str, body: Body, exclusive: bool) -> None:
        """Put what `body` gives, once, in a file's place."""
        await self._replace(path, body, None, exclusive=exclusive, repeat=False)

    async def make_room(self, path: str) -> None:
        """Make the folder that `path` will be in, if that is wanted."""
        folder = documents.parent(path)
        if self.auto_mkdir and not await self._exists(folder):
            await self._makedirs(folder, exist_ok=True)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_kwargs: Any) -> None:
        data = bytes(value)
        await self._write(self._strip_protocol(path), data, len(data), exclusive=mode == "create")

    async def _put_file(
        self, lpath: Any, rpath: str, mode: str = "overwrite", callback: Any = DEFAULT_CALLBACK, **_kwargs: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        if os.path.isdir(lpath):  # noqa: ASYNC240 - as below
            await self._makedirs(rpath, exist_ok=True)
            return
        size = os.path.getsize(lpath)  # noqa: ASYNC240
        callback.set_size(size)

        async def body() -> AsyncIterator[bytes]:
            sent = 0
            with open(lpath, "rb") as file:  # noqa: ASYNC230 - as fsspec's own filesystems do, in a loop of their own
                while piece := file.read(_PIECE_BYTES):
                    sent += len(piece)
                    callback.absolute_update(sent)
                    yield piece

        await self._write(rpath, body, size, exclusive=mode == "create")

    async def _write(self, path: str, body: Body, size: int, *, exclusive: bool) -> None:
        try:
            await self._replace(path, body, size, exclusive=exclusive)
        except FileNotFoundError as error:
            if not self.auto_mkdir or fault_of(error) != NO_FOLDER:
                raise
            await self._makedirs(documents.parent(path), exist_ok=True)
            await self._replace(path, body, size, exclusive=exclusive)

    async def _replace(self, path: str, body: Body, size: int | None, *, exclusive: bool, repeat: bool = True) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        if exclusive:
            headers["If-None-Match"] = "*"
        address = f"/files{documents.quoted(path)}"
        allow = frozenset({412})
        async with self.client.send(
            "PUT", address, path=path, headers=headers, body=body, repeat=repeat, allow=allow
        ) as response:
            if response.status == 412:
                raise FileExistsError(errno.EEXIST, "the file is there already", path)

    async def _mkdir(self, path: str, create_parents: bool = True, **_kwargs: Any) -> None:
        path = self._strip_protocol(path)
        document = documents.container(await self._uri(path))
        try:
            await self.client.fetch("PUT", f"/nodes{documents.quoted(path)}", path=path, body=document)
        except FileNotFoundError as error:
            if not create_parents or fault_of(error) != NO_FOLDER:
                raise
            await self._makedirs(documents.parent(path), exist_ok=True)
            await self.client.fetch("PUT", f"/nodes{documents.quoted(path)}", path=path, body=document)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        try:
            await self._mkdir(path, create_parents=True)
        except FileExistsError:
            if not exist_ok or not await self._isdir(path):
                raise

    # Removing, copying, moving

    async def _rm_file(self, path: str, **_kwargs: Any) -> None:
        path = self._strip_protocol(path)
        await self.client.fetch("DELETE", f"/files{documents.quoted(path)}", path=path)

    async def _rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        root, found = await self._node(path, limit=1)
        if root["type"] != "directory":
            raise NotADirectoryError(errno.ENOTDIR, "this is no folder", path)
        if found:
            raise OSError(errno.ENOTEMPTY, "the folder is not empty", path)
        # The listing leaves out what its reader may not see: whether the folder is empty is for the service to say.
        try:
            await self.client.fetch("DELETE", f"/nodes{documents.quoted(path)}?recursive=false", path=path)
        except FileExistsError as error:
            raise OSError(errno.ENOTEMPTY, "the folder is not empty", path) from error

    async def _remove_tree(self, path: str) -> None:
        address = f"/nodes{documents.quoted(path)}"
        async with self.client.send("DELETE", address, path=path, patience_s=_LONG_S):
            pass

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not recursive or maxdepth is not None:
            await super()._rm(path, recursive=recursive, batch_size=batch_size, maxdepth=maxdepth, **kwargs)
            return
        # The service removes a folder with all that is in it.
        for one in await self._expand_path(path, recursive=False):
            await self._remove_tree(one)

    async def _cp_file(self, path1: str, path2: str, **_kwargs: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        found = await self._info(path1)
        if found["type"] == "directory":
            await self._makedirs(path2, exist_ok=True)
            return
        if found["size"] <= _SMALL_BYTES:
            data, _ = await self.read_range(path1)
            await self._write(path2, data, len(data), exclusive=False)
            return
        await self.make_room(path2)
        if await self._isdir(path2):
            raise IsADirectoryError(errno.EISDIR, "a folder is in the place of the copy", path2)
        try:
            await self._relocate(path1, path2, keep=True)
        except FileExistsError as error:
            if fault_of(error) != EXISTS:
                raise
            await self._stream(path1, path2)

    async def _stream(self, path1: str, path2: str) -> None:
        """Copy through this program, into the place of a file that is there."""

        async def body() -> AsyncIterator[bytes]:
            async with self.client.send("GET", f"/files{documents.quoted(path1)}", path=path1) as response:
                async for data in response.content.iter_chunked(_PIECE_BYTES):
                    yield data

        await self._replace(path2, body, None, exclusive=False)

    async def _mv_file(self, path1: str, path2: str) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        await self.make_room(path2)
        try:
            await self._relocate(path1, path2, keep=False)
        except FileExistsError as error:
            if fault_of(error) != EXISTS:
                raise
            if (await self._node(path2, limit=0))[0]["type"] == "link":
                # The link is replaced, never written through: it may lead to the very file that is moved.
                await self._rm_file(path2)
                await self._relocate(path1, path2, keep=False)
                return
            await self._cp_file(path1, path2)
            await self._rm_file(path1)

    async def _mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Move a file or a folder: within the service, so that it takes no longer when it is large.

        As with the program ``mv``, a folder at `path2` is moved into.
        """
        pairs = list(zip(path1, path2, strict=True)) if isinstance(path1, list) and isinstance(path2, list) else None
        if pairs is None:
            sources = await self._expand_path(path1, recursive=False, maxdepth=maxdepth)
            target = self._strip_protocol(path2)
            into = str(path2).endswith("/") or len(sources) > 1 or await self._isdir(target)
            pairs = [(one, posixpath.join(target, posixpath.basename(one)) if into else target) for one in sources]
        for source, end in pairs:
            if self._strip_protocol(source) != self._strip_protocol(end):
                await self._mv_file(source, end)

    mv = sync_wrapper(_mv)
    rmdir = sync_wrapper(_rmdir)

    async def _relocate(self, path1: str, path2: str, *, keep: bool) -> None:
        """Let the service move or copy a node, as a job, and wait for its end."""
        document = documents.relocation(await self._uri(path1), await self._uri(path2), keep=keep)
        async with self.client.send(
            "POST", "/transfers?PHASE=RUN", path=path1, body=document, follow=False, repeat=False
        ) as response:
            job = response.headers.get("Location", "").rstrip("/").rpartition("/")[2]
        if not job:
            raise OSError(errno.EIO, "the service did not say where the job is", path1)
        phase = ""
        while phase not in _ENDED:
            query = f"?WAIT={_JOB_WAIT_S}" + (f"&PHASE={phase}" if phase else "")
            answer = await self.client.fetch("GET", f"/transfers/{job}{query}", path=path1)
            phase = documents.job_phase(answer)
        if phase != "COMPLETED":
            text = (await self.client.fetch("GET", f"/transfers/{job}/error", path=path1)).decode("utf-8", "replace")
            raise error_of(0, text or phase, path2)


def _is_authority(text: str) -> bool:
    return "~" in text or "!" in text


def _token(endpoint: str) -> str | None:
    """Return the environment's token, if `endpoint` is at the host that it is for."""
    if not _is_own(endpoint):
        return None
    return next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def _is_own(endpoint: str) -> bool:
    """Return whether this is the service of the platform that this server belongs to."""
    origin = _origin(endpoint)
    return origin is not None and origin == _origin(os.environ.get(URL_VARIABLE, ""))


def _origin(address: str) -> URL | None:
    try:
        return URL(address).origin()
    except ValueError:
        return None


def _endpoint(given: str | None, authority: str | None) -> str:
    """Return the service's address. Raises `ValueError` when it is not known."""
    if given:
        return given.rstrip("/")
    known, own = os.environ.get(URL_VARIABLE), os.environ.get(AUTHORITY_VARIABLE)
    if known and authority in {None, own}:
        return known.rstrip("/")
    if known:
        raise ValueError(
            f"no service is known for vos://{authority}; this server's is vos://{own}. "
            "Name the service's address: endpoint='https://HOST/services/vospace'"
        )
    raise ValueError(
        f"the address of the VOSpace service is not known: {URL_VARIABLE} is not set. "
        "Name it: endpoint='https://HOST/services/vospace'"
    )
