"""Transfers (VOSpace 2.1, section 6.4): where bytes go, moves and copies, and bytes that the service itself fetches."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Final
from typing import Protocol as TypingProtocol

from astrocloud.core.uws.jobs import Turn
from astrocloud.vospace.bringing import Bringing
from astrocloud.vospace.domain import Nodes
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.models import (
    ARCHIVE_VIEWS,
    CONTAINER,
    FILE_VIEWS,
    GETS,
    HTTP_GET,
    HTTP_PUT,
    HTTPS_GET,
    HTTPS_PUT,
    PUTS,
    NodePath,
    Person,
    Protocol,
    Transfer,
)
from astrocloud.vospace.preauth import Signer, quoted
from astrocloud.vospace.remote import Remote
from astrocloud.vospace.settings import Settings

PULL_FROM: Final = "pullFromVoSpace"
PUSH_TO: Final = "pushToVoSpace"
PULL_TO: Final = "pullToVoSpace"
PUSH_FROM: Final = "pushFromVoSpace"

_PIECE_BYTES: Final = 1 << 20


class Incoming(TypingProtocol):
    """Takes bytes that come from elsewhere into a node."""

    async def __call__(self, person: Person, path: NodePath, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Put what `pieces` gives into the node at `path`, as a whole or not at all."""


class Transfers:
    """What can be done with a transfer document.

    Parameters
    ----------
    nodes
        The rules of nodes.
    signer
        Makes pre-authorised addresses.
    settings
        Addresses.
    run
        Runs a function in a worker thread.
    run_job
        Runs one that may last, with a way to end it.
    remote
        The outside world.
    incoming
        Takes bytes into a node.
    """

    def __init__(
        self,
        *,
        nodes: Nodes,
        signer: Signer,
        settings: Settings,
        run: Callable[..., Awaitable[Any]],
        run_job: Callable[..., Awaitable[Any]],
        remote: Remote,
        incoming: Incoming,
    ) -> None:
        self._nodes = nodes
        self._signer = signer
        self._settings = settings
        self._run = run
        self._run_job = run_job
        self._remote = remote
        self._incoming = incoming

    async def negotiate(self, person: Person, asked: Transfer) -> Transfer:
        """Return `asked` with the addresses at which a client itself fetches (``pullFrom``) or puts (``pushTo``) bytes.

        An address for which the client names a security method wants that; any other is pre-authorised.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied``, ``ViewNotSupported``, ``ProtocolNotSupported``,
            ``OperationNotSupported`` for another direction.
        """
        if asked.direction == PULL_FROM:
            form = await self._check_source(person, asked)
            method, spoken, usual = "GET", GETS, (HTTPS_GET, HTTP_GET)
        elif asked.direction == PUSH_TO:
            form = None
            self._check_view(asked, FILE_VIEWS)
            await self._run(self._nodes.check_destination, person, asked.target)
            method, spoken, usual = "PUT", PUTS, (HTTPS_PUT, HTTP_PUT)
        else:
            what = f"the direction {asked.direction} in a synchronous transfer; send it to /transfers"
            raise Fault("vospace-operation-not-supported", what=what)
        wanted = asked.protocols or tuple(Protocol(uri) for uri in usual)
        given = [
            replace(protocol, endpoint=self._endpoint(person, asked.target, protocol, method, form))
            for protocol in wanted
            if protocol.uri in spoken
        ]
        if not given:
            names = ", ".join(protocol.uri for protocol in wanted)[:300]
            raise Fault("vospace-protocol-not-supported", protocols=names)
        return replace(asked, protocols=tuple(given))

    async def _check_source(self, person: Person, asked: Transfer) -> str | None:
        """Return the archive that is asked for, if any."""
        self._check_view(asked, FILE_VIEWS | ARCHIVE_VIEWS.keys())
        target = await self._run(self._nodes.check_source, person, asked.target)
        form = ARCHIVE_VIEWS.get(asked.view or "")
        if (target.kind == CONTAINER) != (form is not None):
            raise Fault("vospace-view-not-supported", uri=str(asked.target), view=asked.view or "a file")
        return form

    def _check_view(self, asked: Transfer, known: frozenset[str]) -> None:
        if asked.view is not None and asked.view not in known:
            raise Fault("vospace-view-not-supported", uri=str(asked.target), view=asked.view[:200])

    def _endpoint(self, person: Person, path: NodePath, protocol: Protocol, method: str, form: str | None) -> str:
        if any(protocol.security_methods):
            query = f"?view={form}" if form else ""
            # Around the proxy no cookie counts.
            by_cookie = any(uri.endswith("#cookie") for uri in protocol.security_methods)
            base = self._settings.base_url if by_cookie else self._settings.bytes_url
            return f"{base}/files{quoted(path)}{query}"
        return self._signer.address(self._settings.bytes_url, method=method, path=path, user=person.name, view=form)

    async def perform(self, person: Person, asked: Transfer, turn: Turn) -> NodePath:
        """Do what the service itself does of a transfer: move, copy, ``pullTo``, ``pushFrom``; return where it ended.

        Each can be begun again after any end of an attempt before: bytes replace what is there as a whole, and of moves
        and copies the `turn` knows whether they were done.

        Raises
        ------
        Fault
            As `Nodes.move` and `Nodes.copy`; ``TransferFailed``, ``ProtocolNotSupported``.
        """
        if asked.direction.startswith("vos:"):
            target = self._settings.authority.parse(asked.direction)
            if asked.keep_bytes is None:
                raise invalid_argument("a move or copy says which by keepBytes: true (copy), false (move)")
            bringing = Bringing(nodes=self._nodes, person=person, turn=turn, copies=asked.keep_bytes)
            # Who ends the job is told so when nothing more can appear.
            place: NodePath = await self._run_job(lambda: bringing.bring(asked.target, target), end=bringing.stop.set)
            return place
        if person.name is None and asked.direction in {PULL_TO, PUSH_FROM}:
            # Nobody in particular does not have this service speak to others.
            raise Fault("vospace-permission-denied", uri=str(asked.target))
        if asked.direction == PULL_TO:
            await self._pull(person, asked)
        elif asked.direction == PUSH_FROM:
            await self._push(person, asked)
        else:
            await self.negotiate(person, asked)
        return asked.target

    def _remote_endpoint(self, asked: Transfer, spoken: frozenset[str]) -> str:
        for protocol in asked.protocols:
            if protocol.uri in spoken and protocol.endpoint:
                return protocol.endpoint
        names = ", ".join(protocol.uri for protocol in asked.protocols)[:300] or "(none with an endpoint)"
        raise Fault("vospace-protocol-not-supported", protocols=names)

    async def _pull(self, person: Person, asked: Transfer) -> None:
        self._check_view(asked, FILE_VIEWS)
        url = self._remote_endpoint(asked, GETS)
        await self._run(self._nodes.check_destination, person, asked.target)
        async with self._remote.request("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            pieces = response.content.iter_chunked(_PIECE_BYTES)
            await self._incoming(person, asked.target, aiter(pieces), response.content_length)

    async def _push(self, person: Person, asked: Transfer) -> None:
        self._check_view(asked, FILE_VIEWS)
        url = self._remote_endpoint(asked, PUTS)
        file = await self._run(self._nodes.open, person, asked.target)
        with os.fdopen(file.descriptor, "rb", buffering=0) as source:
            size = file.status.st_size
            headers = {"Content-Type": file.content_type, "Content-Length": str(size)}

            async def pieces() -> AsyncIterator[bytes]:
                position = 0
                while position < size and (
                    piece := await self._run(os.pread, source.fileno(), min(_PIECE_BYTES, size - position), position)
                ):
                    position += len(piece)
                    yield piece

            async with self._remote.request("PUT", url, headers=headers, body=pieces):
                pass
