"""Writing files so that a kill at any moment leaves either the old file or the new one, never half of one."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a disk is full, or a user's share of it."""


_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` when the block ends without error.

    What a killed process left there is written over by the next one that writes `path`.

    Raises:
        OSError: The disk is full or the folder is not writable; the message names `path`, which stays as it was. Errors
            of other files, which the block reads, are left as they are.
    """
    temporary: Path | None = None
    handle, renamed = -1, False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _own_file_beside(path)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        renamed = True
    except OSError as error:
        named = error.filename
        if temporary is not None and isinstance(named, str | Path) and Path(named).parent != path.parent:
            raise
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}). What was there before stays. "
            "Make room or choose another folder, then run the same command again",
        ) from error
    finally:
        if temporary is not None:
            if not renamed:  # after that, the name may be another writer's
                temporary.unlink(missing_ok=True)
            os.close(handle)


def _own_file_beside(path: Path) -> tuple[Path, int]:
    """Create an empty file beside `path` that no other process writes, and keep it open, which keeps it locked."""
    usual = path.with_name(f".{path.name}.part")
    try:
        handle = locked(usual)
        os.ftruncate(handle, 0)
        return usual, handle
    except OSError as error:
        if error.errno not in (*_TAKEN, errno.ELOOP, errno.EACCES, errno.ENOLCK, errno.ENOTSUP):
            raise
    other = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    return other, os.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def locked(path: Path) -> int:
    """Open a file, which is created if there is none, and lock it until it is closed or the process ends.

    Remove the file only while it is locked.

    Raises:
        BlockingIOError: Another process, or another part of this one, has locked it.
        OSError: It cannot be opened, or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, "this system has no such locks")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner has just renamed or removed it


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time into the block: the others wait at the lock file `path`, which stays.

    The lock of a process that dies is free again. Where the system or the file system has no locks, nobody waits.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Yield a new folder among the system's temporary files, which is removed when the block ends.

    What a killed process left of a folder of the same name is removed first.
    """
    parent = Path(tempfile.gettempdir())
    if hasattr(os, "getuid"):
        for left in parent.glob(f"{name}-*/.lock"):
            with contextlib.suppress(OSError):
                if left.parent.stat(follow_symlinks=False).st_uid == os.getuid():
                    handle = locked(left)
                    try:
                        _remove(left.parent)
                    finally:
                        os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    handle = -1
    try:
        handle = locked(folder / ".lock")
    except OSError as error:
        if error.errno not in (*_TAKEN, errno.ENOLCK, errno.ENOTSUP):  # without locks nobody removes it
            folder.rmdir()
            raise
    try:
        yield folder
    finally:
        _remove(folder)
        if handle >= 0:
            os.close(handle)


def _remove(folder: Path) -> None:
    """Remove what can be removed of a temporary folder; its lock goes last, and leads the next run to the rest."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != ".lock":
                with contextlib.suppress(OSError):
                    path.unlink()
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
        folder.rmdir()


def checked_member(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a file in a zip archive, unless it is one that was made to fill the memory.

    Raises:
        ValueError: It states more than 2 GB, or more than 64 MB that were compressed to less than a hundredth.
    """
    too_large = member.file_size > 2_000_000_000
    if too_large or (member.file_size > 64_000_000 and member.file_size > 100 * max(member.compress_size, 1)):
        raise ValueError(
            f"{member.filename} states {member.file_size:,} bytes, which were compressed to {member.compress_size:,}"
        )
    return member


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def default_cache() -> Path:
    """Return ``$MCSS_CACHE``, or ``mcss`` in the user's cache folder."""
    if own := os.environ.get("MCSS_CACHE"):
        return Path(own)
    return user_cache_path("mcss")


def reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes that are really there: writing to a mapped file on a full disk kills the process.

    Raises:
        OSError: They do not fit, or the folder is not writable; no file is left.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            elif shutil.disk_usage(path.parent).free < size:  # macOS, Windows
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                file.truncate(size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
