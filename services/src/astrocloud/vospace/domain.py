"""The rules of VOSpace over the file tree: what can be read, made, changed, moved, copied and removed, and by whom.

Everything is synchronous and for worker threads; nothing here knows HTTP. The kernel decides who may (`acting_as`);
what is decided here besides is what the kernel does not know: the standard's faults, locks, quotas.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from astrocloud.vospace import acl, archives, attributes, copying, listing, locks, posix, rights
from astrocloud.vospace.account import Account, Quotas
from astrocloud.vospace.births import mark_of
from astrocloud.vospace.children import Children
from astrocloud.vospace.errors import Fault, invalid_argument
from astrocloud.vospace.gate import Gate
from astrocloud.vospace.identity import access_tells, acting_as
from astrocloud.vospace.locks import one_after_the_other
from astrocloud.vospace.models import (
    CONTAINER,
    DATA,
    FILE_TYPES,
    LINK,
    MD5,
    NODE_TYPES,
    READ_ONLY,
    RIGHTS,
    Authority,
    Node,
    NodePath,
    NodeRequest,
    Person,
)
from astrocloud.vospace.opening import SUM_AT_ONCE_BYTES, OpenFile, open_file, sum_if_settled
from astrocloud.vospace.people import Owners
from astrocloud.vospace.reading import Reader, readable
from astrocloud.vospace.removing import Removed
from astrocloud.vospace.storage import Tree, measure, sync_folder
from astrocloud.vospace.uploads import Upload, alone, begin, reopen
from astrocloud.vospace.wishes import Wishes


class Nodes:
    """The nodes of one file tree.

    Parameters
    ----------
    tree
        The files.
    authority
        How URIs are written and read.
    owners
        Names behind numbers.
    quotas
        Who may use how much.
    gate
        What the kernel cannot decide when the platform cannot act as others.
    """

    def __init__(self, *, tree: Tree, authority: Authority, owners: Owners, quotas: Quotas, gate: Gate) -> None:
        self.tree = tree
        self.authority = authority
        self._owners = owners
        self.account = Account(quotas)
        self._wishes = Wishes(authority=authority, owners=owners)
        self._gate = gate
        self._indexes = listing.NameIndexes()
        self._kernel_tells = access_tells()
        self.shared: Callable[[NodePath], None] = lambda _path: None
        """Told of a node whose shares changed; called as the platform."""
        self.unsummed: Callable[[NodePath], None] = lambda _path: None
        """Told of a file that was asked for and has no sum; called as the platform."""

    @contextmanager
    def _as(self, person: Person, path: NodePath, want: int) -> Iterator[None]:
        self.tree.open()  # as the platform: people need not be able to reach the data folder by its path
        self._gate.check(person, path, want)
        with acting_as(person.identity):
            yield

    @contextmanager
    def acting(self, person: Person, path: NodePath, want: int) -> Iterator[None]:
        """Let the block be done as `person`, who wants `want` on `path`; must not contain an ``await``."""
        with self._as(person, path, want):
            yield

    def reader(self, person: Person) -> Reader:
        """Return what tells `person` of nodes."""
        return self._reader(person)

    def may_change(self, person: Person, path: NodePath) -> bool:
        """Whether `person` may make and remove names in the folder `path`."""
        try:
            with self._as(person, path, acl.WRITE), self.tree.node(path) as descriptor:
                status, place = os.fstat(descriptor), posix.proc_path(descriptor)
                value = acl.read(place) if status.st_mode & stat.S_IRWXG else None
                return acl.permits(status, value, self._gate.identity(person), acl.WRITE | acl.PASS)
        except (Fault, OSError):
            return False

    def _reader(self, person: Person) -> Reader:
        return Reader(
            who=self._gate.identity(person),
            names=self._owners.names(person),
            authority=self.authority,
            kernel_tells=self._kernel_tells,
        )

    # Reading

    def get(self, person: Person, path: NodePath, detail: str) -> Node:
        """Return the node at `path` for `person`.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied``, ``LinkFound`` (a folder on the way is a link).
        """
        reader = self._reader(person)
        usage = self.account.usage(path) if path.top == path else None
        with self._as(person, path, acl.READ), self.tree.node(path) as descriptor:
            self._check_readable(person, path, descriptor)
            node = reader.node(descriptor, path, detail, usage)
        if node.kind in FILE_TYPES and detail != "min" and MD5 not in node.properties:
            # Asked for by itself, not in a listing: clients that synchronize compare it.
            with suppress(Fault):
                file = self.open(person, path)
                file.close()
                if file.md5 is not None:
                    return replace(node, properties={**node.properties, MD5: file.md5})
        return node

    def _check_readable(self, person: Person, path: NodePath, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_IFMT(status.st_mode) not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            what = "a device, pipe or socket"
            raise self.tree.hides(path, Fault("vospace-type-not-supported", uri=str(path), type=what))
        if not readable(status, posix.proc_path(descriptor), self._gate.identity(person)):
            raise Fault("vospace-permission-denied", uri=str(path))

    def children(
        self,
        person: Person,
        path: NodePath,
        *,
        detail: str,
        start: bytes | None = None,
        limit: int | None = None,
        sort: str = "name",
        descending: bool = False,
    ) -> "Children":
        """Return the children of the folder `path`, to be taken a batch at a time.

        Parameters
        ----------
        detail
            How much is told of each: ``min``, ``properties`` or ``max``.
        start
            The name to begin with, itself included.
        limit
            How many at most; `None`: all of them.

        Raises
        ------
        Fault
            As `get`; ``InvalidArgument`` when the folder is too large for the order asked for.
        """
        with self._as(person, path, acl.READ | acl.PASS), self.tree.folder(path) as folder:
            # A descriptor of its own: scandir keeps it as long as the listing lives.
            kept = os.dup(folder)
        children = Children(
            folder=kept, path=path, reader=self._reader(person), person=person, detail=detail, limit=limit
        )
        try:
            with acting_as(person.identity):
                entries = listing.names_in_order(
                    kept,
                    indexes=self._indexes,
                    start=start,
                    paged=limit is not None,
                    sort=sort,
                    descending=descending,
                )
                children.begin(entries)
        except ValueError as err:
            children.close()
            raise invalid_argument(str(err)) from err
        except BaseException:
            children.close()
            raise
        return children

    def open(self, person: Person, path: NodePath) -> OpenFile:
        """Return the file that `path` leads to, open for reading. Raises as `opening.open_file` does."""
        with self._as(person, path, acl.READ):
            if self._gate.closed:
                path = self.tree.follow(path)
                self._gate.check(person, path, acl.READ)
            file = open_file(self.tree, path)
        try:
            file = sum_if_settled(file)
            if file.md5 is None and file.status.st_size > SUM_AT_ONCE_BYTES:
                self.unsummed(file.path)
            return file
        except BaseException:
            file.close()
            raise

    # Making

    def create(self, person: Person, request: NodeRequest) -> Node:
        """Make a node as `request` describes it, and return it as it is.

        Properties that the service decides are ignored; an unknown type is refused.

        Raises
        ------
        Fault
            ``DuplicateNode``, ``ContainerNotFound``, ``LinkFound``, ``PermissionDenied``, ``TypeNotSupported``,
            ``InvalidURI``, ``QuotaExceeded``.
        """
        path, kind = request.path, request.kind or DATA
        if kind not in NODE_TYPES:
            raise Fault("vospace-type-not-supported", uri=str(path), type=kind)
        if not path.parts:
            raise Fault("vospace-duplicate-node", uri=str(path))
        path.check_new_name()
        target = self._wishes.link_target(request) if kind == LINK else b""
        changes = {uri: text for uri, text in request.properties.items() if uri not in READ_ONLY and text}
        wanted = self._wishes.rights(person, changes, current=None)
        kept = {uri: text for uri, text in changes.items() if uri not in RIGHTS}
        special = kind if kind in FILE_TYPES - {DATA} else None
        with self._as(person, path, acl.WRITE):
            # Before anything is counted: whoever may not, learns nothing of how full it is.
            self.tree.check_creatable(path, self._gate.identity(person))
        with self.account.charged(path, size=0, files=1), self._as(person, path, acl.WRITE):
            locks.check_parent_unlocked(self.tree, path)
            # Nobody's bytes come in the place of what may be taken away again.
            with self.tree.place(path) as place, alone(place.folder, place.name):
                if kind == LINK:
                    self.tree.make_link(path, target)
                else:
                    (self.tree.make_folder if kind == CONTAINER else self.tree.make_file)(path)
                    try:
                        self._begin_with(path, attributes.Kept(special, kept), wanted)
                    except BaseException:
                        with suppress(Fault):
                            self.tree.remove_one(path)
                        raise
        return self.get(person, path, "max")

    def _begin_with(self, path: NodePath, kept: attributes.Kept, wanted: rights.Rights) -> None:
        """Give the new node at `path` its properties and shares."""
        if kept.kind or kept.properties:
            with self.tree.node(path) as descriptor:
                attributes.write_kept(posix.proc_path(descriptor), kept)
        if wanted:
            rights.apply(self.tree, path, wanted)

    # Changing

    def set(self, person: Person, request: NodeRequest) -> Node:
        """Change the properties of a node, and return it as it is then.

        Properties that are not in `request` stay; one whose value is `None` goes.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``PermissionDenied`` (not the owner, or a property that the service decides),
            ``InvalidArgument`` (another type, a value that cannot be).
        """
        path = request.path
        now = self.get(person, path, "max")
        if request.kind is not None and request.kind != now.kind and {request.kind, now.kind} - FILE_TYPES:
            raise invalid_argument(f"{path} is a {now.kind} and cannot become a {request.kind}")
        changes = {uri: text for uri, text in request.properties.items() if now.properties.get(uri) != (text or None)}
        for uri in changes:
            if uri in READ_ONLY:
                raise Fault("vospace-permission-denied", uri=f"{path} ({uri} is read-only)")
        if not changes:
            return now
        if now.kind == LINK:
            raise Fault("vospace-operation-not-supported", what="properties of a link; set them where it leads to")
        wanted = self._wishes.rights(person, changes, current=now)
        keeps = {uri: text for uri, text in changes.items() if uri not in RIGHTS}
        with (
            self._as(person, path, acl.WRITE),
            self.tree.place(path) as place,
            # What comes in its place meanwhile has what it had before: no change of it may be in between.
            alone(place.folder, place.name),
            self.tree.node(path) as node,
            one_after_the_other(node),
        ):
            before = self._write_kept(path, keeps) if keeps else None
            try:
                if wanted:
                    rights.apply(self.tree, path, wanted)
            except BaseException:
                if before is not None:  # all that was asked for, or nothing of it
                    with suppress(Fault, OSError):
                        self._put_kept(path, before)
                raise
        if wanted:
            self.shared(path)
        return self.get(person, path, "max")

    def _put_kept(self, path: NodePath, kept: attributes.Kept) -> None:
        with self.tree.node(path) as descriptor:
            attributes.write_kept(posix.proc_path(descriptor), kept)

    def _write_kept(self, path: NodePath, changes: Mapping[str, str | None]) -> attributes.Kept:
        """Make the `changes` in what is kept with the node; return what was kept before."""
        with self.tree.node(path) as descriptor:
            place = posix.proc_path(descriptor)
            kept = attributes.read_kept(place)
            merged = {**kept.properties, **{uri: text for uri, text in changes.items() if text}}
            for uri, text in changes.items():
                if not text:
                    merged.pop(uri, None)
            try:
                attributes.write_kept(place, attributes.Kept(kept.kind, merged))
            except OSError as err:
                raise self.tree.refusal(err, path) from err
        return kept

    # Removing, moving, copying

    def delete(self, person: Person, path: NodePath) -> None:
        """Remove the node at `path`, and all below a folder.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``ContainerNotFound``, ``PermissionDenied``, ``NodeLocked``, ``LinkFound``.
        """
        self._check_not_a_top(path)
        with self.account.busy(path), self._giving_back(path) as removed, self._as(person, path, acl.WRITE):
            with self.tree.place(path):
                locks.check_unlocked(self.tree, path)  # after its folder: that one missing is another fault
            locks.check_unlocked_below(self.tree, path)
            self.tree.remove(path, removed)

    @contextmanager
    def _giving_back(self, path: NodePath) -> Iterator[Removed]:
        """Give back for the quota of `path` what the block removes, though it may fail before all of it went."""
        removed = Removed()
        try:
            yield removed
        finally:
            self.account.refund(path, size=removed.size, files=removed.files)

    def delete_file(self, person: Person, path: NodePath, check: Callable[[os.stat_result], None]) -> None:
        """Remove the file or link at `path`, unless `check`, which is told what is there now, raises something.

        Raises
        ------
        Fault
            As `delete`; ``TypeNotSupported`` for a folder.
        """
        self._check_not_a_top(path)
        with (
            self.account.busy(path),
            self._giving_back(path) as removed,
            self._as(person, path, acl.WRITE),
            self.tree.place(path) as place,
            alone(place.folder, place.name),
        ):
            locks.check_unlocked(self.tree, path)
            removed.add(self.tree.remove_file(place, check))

    def delete_one(self, person: Person, path: NodePath, *, lasting: bool = True) -> None:
        """Remove the node at `path` alone: a folder only when nothing is in it. Raises as `delete` does.

        Unless it is to be `lasting`, the caller makes it that afterwards, by `make_lasting`.
        """
        self._check_not_a_top(path)
        with self.account.busy(path):
            with self._as(person, path, acl.WRITE):
                locks.check_unlocked(self.tree, path)
                size, files = self.tree.remove_one(path)
            if lasting:
                self.make_lasting(person, path.parent)
            self.account.refund(path, size=size, files=files)

    def make_lasting(self, person: Person, folder: NodePath) -> None:
        """Let what `delete_one` removed from `folder` stay removed after a power failure."""
        with suppress(Fault), self._as(person, folder, acl.WRITE), self.tree.node(folder) as descriptor:
            sync_folder(descriptor)

    def purge(self, path: NodePath) -> None:
        """Remove the node at `path` and all below it as the platform, whoever owns it; one that is gone is no error."""
        with self.account.busy(path), suppress(Fault), self._giving_back(path) as removed:
            self.tree.remove(path, removed)

    def measured(self, person: Person, path: NodePath) -> tuple[int, int]:
        """Return the bytes and files of `path` and all below it. Raises `Fault`."""
        with self._as(person, path, acl.READ):
            return self._measured(path)

    def move(
        self,
        person: Person,
        source: NodePath,
        target: NodePath,
        *,
        into: bool = True,
        tell: copying.Tell = copying.say_nothing,
        appear: copying.Appear = copying.note_nothing,
    ) -> NodePath:
        """Move `source` to `target`, or into it when it is a folder; return where it is now.

        Parameters
        ----------
        into
            Whether a folder at `target` takes it in; else that is ``DuplicateNode`` as well.
        tell, appear
            As of `copy`; told of bytes only when there are two file systems.

        Raises
        ------
        Fault
            ``NodeNotFound``, ``ContainerNotFound``, ``DuplicateNode``, ``PermissionDenied``, ``InvalidArgument`` (into
            itself), ``QuotaExceeded``.
        """
        self._check_not_a_top(source)
        with self._as(person, source, acl.WRITE):
            locks.check_unlocked(self.tree, source)
            locks.check_unlocked_below(self.tree, source)
            target = self._destination(source, target, into=into)
            self._gate.check(person, target, acl.WRITE)
            locks.check_parent_unlocked(self.tree, target)
            size, files = self._measured(source) if source.top != target.top else (0, 0)
            if files:
                self.tree.check_creatable(target, self._gate.identity(person))
            with self.tree.place(source) as place:
                mark = mark_of(place.folder, place.name)
        appear(target, mark)
        with self.account.busy(source):
            taken: copying.Taken | None = None
            with self.account.charged(target, size=size, files=files), acting_as(person.identity):
                try:
                    self.tree.rename(source, target)
                except OSError as err:
                    if err.errno != errno.EXDEV:
                        raise
                    # Another file system, as a project's own volume is.
                    taken = copying.Taken()
                    copying.copy(
                        self.tree, source, target, identity=person.identity, tell=tell, appear=appear, taken=taken
                    )
            # The copy stays whatever becomes of the rest: what it has may have gone from here.
            with self._giving_back(source) as removed:
                if taken is not None:
                    with acting_as(person.identity):
                        self.tree.remove(source, removed, only=taken)
                elif source.top != target.top:
                    removed.size, removed.files = size, files
                if source.top == target.top:
                    removed.size = removed.files = 0
        return target

    def copy(
        self,
        person: Person,
        source: NodePath,
        target: NodePath,
        *,
        into: bool = True,
        tell: copying.Tell = copying.say_nothing,
        appear: copying.Appear = copying.note_nothing,
    ) -> NodePath:
        """Copy `source`, with all below it, to `target`, or into it when it is a folder; return where the copy is.

        Parameters
        ----------
        into
            As of `move`.
        tell
            Told of bytes as they are copied; what it raises ends the copy, and then nothing is there.
        appear
            Told of the copy when all of it is made, before it is there.

        Raises
        ------
        Fault
            As `move`; ``PermissionDenied`` also when a part may not be read, and then nothing is there.
        """
        with self._as(person, source, acl.READ):
            target = self._destination(source, target, into=into)
            self._gate.check(person, target, acl.WRITE)
            locks.check_parent_unlocked(self.tree, target)
            if target.inside(source) and target != source:
                with self.tree.node(source) as descriptor:
                    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                        raise invalid_argument(f"{source} cannot be copied into itself ({target})")
            size, files = self._measured(source)
            self.tree.check_creatable(target, self._gate.identity(person))
        with self.account.charged(target, size=size, files=files), acting_as(person.identity):
            copying.copy(self.tree, source, target, identity=person.identity, tell=tell, appear=appear)
        return target

    def _measured(self, path: NodePath) -> tuple[int, int]:
        with self.tree.place(path) as place:
            try:
                return measure(place.folder, place.name)
            except OSError as err:
                raise self.tree.refusal(err, path) from err

    def _destination(self, source: NodePath, target: NodePath, *, into: bool) -> NodePath:
        """Return where `source` goes when it is sent to `target`."""
        try:
            with self.tree.node(target) as descriptor:
                if into and stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    target = target / source.name
        except Fault as fault:
            if fault.code not in {"vospace-node-not-found", "vospace-container-not-found"}:
                raise
        target.check_new_name()
        return target

    def _check_not_a_top(self, path: NodePath) -> None:
        if path.top == path or len(path.parts) < 2:
            raise Fault("vospace-permission-denied", uri=str(path))

    # Bytes in

    def check_source(self, person: Person, path: NodePath) -> Node:
        """Return the node whose bytes `path` leads to, through links. Raises as `get` does."""
        with self._as(person, path, acl.READ):
            path = self.tree.follow(path)
        return self.get(person, path, "min")

    def check_destination(self, person: Person, path: NodePath) -> None:
        """Refuse what an upload to `path` would be refused for, as far as can be told before it comes."""
        self.begin_upload(person, path).abandon()

    def begin_upload(self, person: Person, path: NodePath) -> Upload:
        """Open an upload to `path`, or to where it leads as a link. Raises as `begin` does, and ``NodeLocked``."""
        with self._as(person, path, acl.WRITE):
            path = self._behind_links(path)
            self._gate.check(person, path, acl.WRITE)
            upload = begin(self.tree, path, person.identity)
            try:
                self._check_takes_bytes(upload)
            except BaseException:
                upload.abandon()
                raise
            return upload

    def reopen_upload(self, person: Person, path: NodePath, hidden: bytes) -> Upload:
        """Open again the upload to `path` whose bytes are in the file `hidden`. Raises as `uploads.reopen` does."""
        with self._as(person, path, acl.WRITE):
            upload = reopen(self.tree, path, person.identity, hidden)
            try:
                self._check_takes_bytes(upload)
            except BaseException:
                upload.close()
                raise
            return upload

    def _check_takes_bytes(self, upload: Upload) -> None:
        if upload.replaced is not None:
            locks.check_unlocked(self.tree, upload.path)
        else:
            locks.check_parent_unlocked(self.tree, upload.path)

    @contextmanager
    def folder_of(self, person: Person, path: NodePath) -> Iterator[int]:
        """Give a descriptor of the folder that `path` is in, as `person`."""
        with self._as(person, path, acl.WRITE), self.tree.place(path) as place:
            try:
                yield place.folder
            except OSError as err:
                raise self.tree.refusal(err, path) from err

    def _behind_links(self, path: NodePath) -> NodePath:
        """Return where bytes for `path` go: through links, as a notebook writes through them."""
        try:
            return self.tree.follow(path)
        except Fault as fault:
            if fault.code != "vospace-node-not-found":
                raise
        try:
            return self.tree.follow(path.parent) / path.name
        except Fault as fault:
            if fault.code == "vospace-node-not-found":
                raise Fault("vospace-container-not-found", uri=str(path.parent)) from fault
            raise

    def archive(self, person: Person, path: NodePath, form: str, send: Callable[[bytes], None]) -> None:
        """Hand the folder `path`, as ``zip`` or ``tar`` of what `person` may read, to `send` in pieces."""
        with self._as(person, path, acl.READ | acl.PASS), self.tree.folder(path) as folder:
            try:
                archives.write(folder, path.shown_name or "all", form, send)
            except posix.TooDeepError as err:
                raise self.tree.refusal(err, path) from err
