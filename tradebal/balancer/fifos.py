"""Owns the shard directory: its lock, and the named FIFOs through which workers get their trades."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tradebal.errors import UserError
from tradebal.stream import pipes
from tradebal.systemd import events

_log = logging.getLogger(__name__)

LOCK_NAME = "balancer.lock"
_FIFO_NAME = re.compile(r"shard-\d+\.fifo")
_MODE = 0o640


class DirectoryLock:
    """Keeps a second balancer off the shard directory for as long as this process lives.

    The lock is the kernel's (flock), so it goes with the process however that ends; the pid in the file only serves
    the message that a second balancer prints.
    """

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises UserError (exit code 3) naming the pid of the balancer that holds it, and UserError where the
        directory can't be made or written, or somebody else could put files of theirs in the place of ours.
        """
        path = directory / LOCK_NAME
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            _refuse_foreign(directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise UserError(
                f"shards.directory: {directory} can't be used: {error.strerror}",
                hint="create it for this user, or set [shards] directory to one that this user may write",
                code=2,
            ) from None
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(self._fd)
            raise UserError(f"{path} is in the way: it is not a file of tradebal's", hint="remove it")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise UserError(
                f"another balancer (pid {holder}) is running on {directory}",
                hint=f"stop it first (kill {holder}), or give this one its own [shards] directory",
                code=3,
            ) from None
        try:
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._fd)
            raise UserError(
                f"shards.directory: {path} can't be written: {error.strerror}",
                hint=f"make room in the file system of {directory}, or set [shards] directory to another",
                code=2,
            ) from None

    def release(self) -> None:
        """Let the next balancer in."""
        os.close(self._fd)


def _refuse_foreign(directory: Path) -> None:
    """Refuse a directory in which a user other than this one and root decides what stands under which name."""
    status = directory.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise UserError(
            f"shards.directory: {directory} belongs to another user (uid {status.st_uid})",
            hint="run the balancer as that user, or set [shards] directory to one of this user's own",
        )
    if status.st_mode & stat.S_IWOTH:
        raise UserError(
            f"shards.directory: everybody may write to {directory}",
            hint=f"set [shards] directory to one of this user's own, such as {directory / 'tradebal'}",
        )


@dataclass(frozen=True)
class Fifo:
    """One shard's named FIFO, held open for reading and writing.

    Holding the reading side too keeps unread data alive while its worker is away, and spares us SIGPIPE (fifo(7)).
    """

    shard: int
    path: Path
    fd: int
    capacity: int
    """What the kernel really gave, in bytes (F_GETPIPE_SZ)."""

    def unread(self) -> int:
        """Bytes written and not read yet (FIONREAD)."""
        return pipes.unread(self.fd)


def create(directory: Path, count: int, pipe_size: int, parked: Mapping[int, int] | None = None) -> list[Fifo]:
    """Make the FIFOs of shards 0 to `count` − 1, as large as asked (bytes) or as the kernel allows.

    `parked` has descriptors of an earlier run's FIFOs, by shard: where such a FIFO still stands at its path it is taken
    over with what is in it, else its descriptor is closed.

    All others of an earlier run are unlinked, not reused: a worker that still holds one reads it to its end, sees that
    no writer is left, and opens the new one; so the torn last record of a balancer that was killed can never run
    together with the first record of this one.

    Raises UserError where something that isn't a FIFO stands in the way, or the directory can't be written.
    """
    paths = [directory / f"shard-{shard}.fifo" for shard in range(count)]
    kept = _take_over(paths, parked or {})
    _remove_stale(directory, {paths[shard] for shard in kept})
    descriptors: list[int] = []
    try:
        for shard, path in enumerate(paths):
            if shard in kept:
                descriptors.append(kept[shard])
                continue
            os.mkfifo(path, _MODE)
            path.chmod(_MODE)  # whatever the umask is
            descriptors.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        close(descriptors)
        hint = "raise the limit on open files (LimitNOFILE=, ulimit -n)" if error.errno == errno.EMFILE else ""
        raise UserError(f"{path}: can't make the FIFO: {error.strerror}", hint=hint) from None
    capacity = pipes.enlarge(descriptors, pipe_size)
    _log.info("fifos: count=%d directory=%s asked=%d got=%d bytes each", count, directory, pipe_size, capacity)
    if capacity < pipe_size:
        _log.warning(
            "fifos: got=%d bytes each, less than pipe_size=%d: fs.pipe-max-size or fs.pipe-user-pages-soft is lower; "
            "a slow worker overflows sooner (`tradebal check` prints the commands that raise them)",
            capacity,
            pipe_size,
            extra=events.SMALL_FIFOS(),
        )
    return [Fifo(shard, path, fd, capacity) for shard, (path, fd) in enumerate(zip(paths, descriptors, strict=True))]


def remove(fifos: Sequence[Fifo]) -> None:
    """Unlink and close the FIFOs; a worker that has one open still reads what is in it."""
    for fifo in fifos:
        fifo.path.unlink(missing_ok=True)
        os.close(fifo.fd)


def close(descriptors: Sequence[int]) -> None:
    """Close descriptors that no Fifo owns yet."""
    for fd in descriptors:
        os.close(fd)


def _take_over(paths: Sequence[Path], parked: Mapping[int, int]) -> dict[int, int]:
    kept = {}
    for shard, fd in parked.items():
        unread = pipes.unread(fd)
        if shard < len(paths) and _stands_at(paths[shard], fd):
            kept[shard] = fd
            _log.info("fifos: took over shard=%d unread=%d bytes", shard, unread)
            continue
        os.close(fd)
        if unread:
            _log.warning(
                "fifos: gave up shard=%d unread=%d bytes, which only a worker that has it open will read", shard, unread
            )
    return kept


def _stands_at(path: Path, fd: int) -> bool:
    try:
        there, ours = path.lstat(), os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISFIFO(there.st_mode) and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _remove_stale(directory: Path, kept: set[Path]) -> None:
    for path in sorted(directory.iterdir()):
        if not _FIFO_NAME.fullmatch(path.name) or path in kept:
            continue
        if not stat.S_ISFIFO(path.lstat().st_mode):
            raise UserError(
                f"{path} is in the way: it is not a FIFO",
                hint="move it elsewhere; tradebal makes its FIFOs under that name",
            )
        path.unlink()
        _log.info("fifos: removed=%s left by an earlier run", path)
