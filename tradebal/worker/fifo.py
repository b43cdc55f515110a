"""A shard's FIFO as its reader sees it: it may not exist yet, lose its writer, or be replaced by a new one."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from tradebal.errors import UserError


class FifoReader:
    """The reading end of one named FIFO, which only one process at a time may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        """-1 while the FIFO isn't open."""
        self._identity = (0, 0)

    def open(self) -> bool:
        """Open what stands at the path; False if nothing does.

        Raises UserError if it isn't a FIFO, may not be read, or (code 3) another process reads it.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(
                f"{self.path}: can't be opened: {error.strerror}",
                hint="run the worker as the balancer's user or as a member of its group",
            ) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISFIFO(status.st_mode):
                raise UserError(f"{self.path} is not a FIFO", hint="remove it; the balancer makes its FIFOs itself")
            self._lock(fd, status.st_ino)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        self._identity = (status.st_dev, status.st_ino)
        return True

    def replaced(self) -> bool:
        """Whether another file than the one that is open stands at the path now."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != self._identity

    def read_into(self, space: memoryview) -> int | None:
        """Read what is there into `space`; returns the count of bytes, 0 without a writer, None where there are none.

        One call of readv(2), straight into the caller's memory.
        """
        try:
            return os.readv(self.fd, [space])
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close it, and let another process read it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _lock(self, fd: int, inode: int) -> None:
        """Two readers would tear records apart: each would get pieces of the other's."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another process{_lock_holder(inode)} reads this shard",
                hint="each shard has one worker: stop the other, or start this one with another number",
                code=3,
            ) from None


def _lock_holder(inode: int) -> str:
    """Return " (pid N)" of the process with a flock on that inode, "" where that can't be told (proc_locks(5))."""
    try:
        entries = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for entry in entries:
        fields = entry.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return f" (pid {fields[4]})"
    return ""
