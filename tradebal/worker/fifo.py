"""A shard's FIFO as its reader sees it: it may not exist yet, lose its writer, or be replaced by a new one.

What is read stays in the FIFO until it is discarded, so a reader that is killed in between takes nothing with it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from tradebal.errors import UserError
from tradebal.stream import pipes
from tradebal.stream.marks import MarkReader


class FifoReader:
    """The reading end of one named FIFO, which only one process at a time may hold."""

    def __init__(self, path: Path, read_size: int, marks: MarkReader) -> None:
        """Read up to `read_size` bytes at once, and have `marks` count what is discarded."""
        self.path = path
        self.fd = -1
        """-1 while the FIFO isn't open."""
        self.most = 0
        """Bytes that `peek` returns at most."""
        self._read_size = read_size
        self._marks = marks
        self._identity = (0, 0)
        self._small = False
        self._copy_in = self._copy_out = self._nowhere = -1

    def open(self) -> bool:
        """Open what stands at the path; False if nothing does.

        Raises UserError if it isn't a FIFO, may not be read, or (code 3) another process reads it.
        """
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(
                f"{self.path}: can't be opened: {error.strerror}",
                hint="run the worker as the balancer's user or as a member of its group",
            ) from None
        try:
            status = os.fstat(self.fd)
            if not stat.S_ISFIFO(status.st_mode):
                raise UserError(f"{self.path} is not a FIFO", hint="remove it; the balancer makes its FIFOs itself")
            self._lock(self.fd, status.st_ino)
            self._copy_out, self._copy_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise
        self._identity = (status.st_dev, status.st_ino)
        self._marks.attach(status.st_ino)
        size = pipes.capacity(self.fd)
        self._small = size < pipes.DEFAULT_SIZE
        # What is being handled still takes its room: the other half is the balancer's meanwhile.
        most = min(self._read_size, size // 2)
        # Twice as large, since partly filled pages take the room of whole ones.
        self.most = min(most, pipes.enlarge([self._copy_in], 2 * most))
        return True

    def replaced(self) -> bool:
        """Whether another file than the one that is open stands at the path now."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != self._identity

    def unread(self) -> int:
        """Return how many bytes are in the FIFO."""
        return pipes.unread(self.fd)

    def peek(self) -> bytes:
        """Return a copy of the FIFO's first bytes, at most `most`; none if there are none. They stay in the FIFO."""
        try:
            count = pipes.tee(self.fd, self._copy_in, self.most)
        except BlockingIOError:
            return b""
        return os.read(self._copy_out, count) if count else b""

    def holds_more(self, than: int) -> bool:
        """Whether there are more bytes in the FIFO than so many; or may soon be, in one that is very small.

        To be asked after `peek`, which may leave some out: of what was there before it, an edge-triggered poll says
        nothing again.
        """
        return self._small or pipes.unread(self.fd) > than

    def discard(self, count: int) -> None:
        """Take the first `count` bytes out of the FIFO, which has as many.

        The kernel does it under the pipe's lock, so a reader that is killed meanwhile has taken all of them or none.
        """
        if not count:
            return
        self._marks.taking()
        left = count
        while left:
            left -= os.splice(self.fd, self._nowhere, left)
        self._marks.took(count)

    def close(self) -> None:
        """Close it, and let another process read it."""
        self._marks.close()
        for fd in (self.fd, self._copy_in, self._copy_out, self._nowhere):
            if fd >= 0:
                os.close(fd)
        self.fd = self._copy_in = self._copy_out = self._nowhere = -1

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
