"""The system calls that resolve and rename without a string ever being trusted as a path."""

import ctypes
import errno
import os
from typing import Final

_SYS_OPENAT2: Final = 437
"""The same number on every architecture."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_DESCRIPTOR_SLASHES: Final = 4  # "/proc/self/fd/7"

_LISTING_ACLS: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0x01021994})
"""The file systems ext2 to ext4, XFS, Btrfs and tmpfs, as ``statfs`` numbers them."""

_libc = ctypes.CDLL(None, use_errno=True)


DEEPEST: Final = 256
"""How many folders, one in another, are worked on at once: each costs open descriptors and a place on the stack."""


class TooDeepError(OSError):
    """Folders are nested deeper than `DEEPEST`."""


def check_depth(depth: int) -> None:
    """Raise `TooDeepError` at a depth at which nothing is worked on any more."""
    if depth > DEEPEST:
        raise TooDeepError(errno.ENAMETOOLONG, f"folders are nested more than {DEEPEST} deep")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_has_openat2: bool | None = None


def open_beneath(folder: int, parts: tuple[bytes, ...], flags: int, mode: int = 0) -> int:
    """Return a descriptor of what `parts` name below the descriptor `folder`, without passing any symbolic link.

    With ``O_PATH | O_NOFOLLOW`` a final symbolic link is opened itself.

    Raises
    ------
    OSError
        ``ELOOP`` when a link is in the way, and whatever else the kernel says.
    """
    global _has_openat2  # noqa: PLW0603 - asked once a process
    if not parts:
        return os.open(b".", flags | os.O_CLOEXEC, mode, dir_fd=folder)
    if _has_openat2 is not False:
        how = _OpenHow(
            flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS
        )
        while True:
            result: int = _libc.syscall(_SYS_OPENAT2, folder, b"/".join(parts), ctypes.byref(how), ctypes.sizeof(how))
            if result >= 0:
                _has_openat2 = True
                return result
            error = ctypes.get_errno()
            if error == errno.EAGAIN:  # a rename somewhere in the tree at this moment
                continue
            if _has_openat2 is None and error in {errno.ENOSYS, errno.EPERM}:
                _has_openat2 = False
                break
            raise OSError(error, os.strerror(error))
    return walk_beneath(folder, parts, flags, mode)


def walk_beneath(folder: int, parts: tuple[bytes, ...], flags: int, mode: int = 0) -> int:
    """Do what `open_beneath` does where the kernel (before 5.6) or a sandbox has no ``openat2``: one name at a time."""
    here = os.dup(folder)
    try:
        for part in parts[:-1]:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                inner = os.open(part, step, dir_fd=here)
            except NotADirectoryError:
                # O_DIRECTORY says so of a link as well; tell the two apart.
                if _is_link(part, here):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                raise
            os.close(here)
            here = inner
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
    except NotADirectoryError:
        if flags & os.O_DIRECTORY and _is_link(parts[-1], here):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    finally:
        os.close(here)


def _is_link(name: bytes, folder: int) -> bool:
    import stat

    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def rename_new(source: bytes, source_folder: int, target: bytes, target_folder: int) -> None:
    """Rename, unless `target` exists. Raises `FileExistsError` then, and `OSError` as the kernel says."""
    result = _libc.renameat2(source_folder, source, target_folder, target, _RENAME_NOREPLACE)
    if result == 0:
        return
    error = ctypes.get_errno()
    if error not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(error, os.strerror(error))
    # EINVAL also means "into itself", which plain rename() says again; a few network file systems lack the flag.
    try:
        os.stat(target, dir_fd=target_folder, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def exchange(folder: int, one: bytes, other: bytes) -> None:
    """Let two names in `folder` be each other's in one step. Raises `OSError`, also where that cannot be done."""
    if _libc.renameat2(folder, one, folder, other, _RENAME_EXCHANGE):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def exists(folder: int, name: bytes) -> bool:
    """Whether anything in the open folder `folder` has `name`. Raises `OSError` when the kernel does not say."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def names_in(folder: int) -> list[bytes]:
    """Return the names in the open folder `folder`, opened anew: who else reads through it has a place of their own."""
    again = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return list(map(os.fsencode, os.listdir(again)))
    finally:
        os.close(again)


def proc_path(descriptor: int, name: bytes | None = None) -> str:
    """Return a path that names what `descriptor` is open on, or `name` inside of it, whatever happens to its names."""
    base = f"/proc/self/fd/{descriptor}"
    return base if name is None else f"{base}/{os.fsdecode(name)}"


def is_descriptor(path: str) -> bool:
    """Whether `path` is of the first kind that `proc_path` returns: the descriptor itself.

    That is a link which must be passed and leads to the open file, be it a symbolic link, and no further; of a name in
    a folder a final link must not be passed.
    """
    return path.count("/") == _DESCRIPTOR_SLASHES


def lists_acls(descriptor: int) -> bool:
    """Whether a file's access control list is surely among the names of its extended attributes, if it has one.

    Where it is not, as on some network file systems, it must be asked for.
    """
    told = (ctypes.c_long * 64)()  # struct statfs, which is smaller everywhere; its first field is the type
    return _libc.fstatfs(descriptor, told) == 0 and told[0] in _LISTING_ACLS
