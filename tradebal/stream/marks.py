"""Marks in a shard's stream: when the balancer received what stands there, so that the worker can tell how late it is.

They lie in a file beside the FIFO, `marks/shard-N`, which both processes map. The one who takes bytes out of the FIFO
counts them there; the other one, adding what is still in the FIFO, knows where in the reader's count the stream's
end is, and so any place before it. So neither has to know the other's past, and either may be restarted.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import stat
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tradebal.stream import pipes

_log = logging.getLogger(__name__)

_MAGIC = 0x314B52414D424454
"""Of this layout, all in 64-bit words of this machine's order."""
_READER = 1
"""Inode of the FIFO that is counted; 0: none yet."""
_TURN = 2
"""Odd while bytes are taken out and not counted yet."""
_TAKEN = 3
"""Bytes taken out."""
_MARKS = 4
"""Marks made."""
_VALID = 5
"""How many of them were made before the present count began, and so mean nothing."""
_FIRST = 6
"""The latest marks: place in the reader's count, and CLOCK_REALTIME in nanoseconds."""
_KEPT = 1024
_WORDS = _FIRST + 2 * _KEPT
_SIZE = 8 * _WORDS

_LARGEST = 1 << 62
"""No count comes that far."""

_PASSED = 4096
"""Reads that a reader remembers: a mark may be made a second after its place was read."""


def path_of(directory: Path, shard: int) -> Path:
    """Return where a shard's marks are, below the shards' directory."""
    return directory / "marks" / f"shard-{shard}"


class MarkWriter:
    """The balancer's side for one shard."""

    def __init__(self, path: Path) -> None:
        """Make the file, or go on with the one that is there. Without one, which is logged, there are no marks."""
        self._edits = 0
        self._file = _File()
        try:
            path.parent.mkdir(mode=0o750, exist_ok=True)
            if not self._file.map(path):
                _make(path)
                self._file.map(path)
        except OSError as error:
            _log.warning("marks not written: file=%s error=%s: the latency is not measured", path, error.strerror)

    def mark(self, fifo: int, *, behind: int, edits: int, time_ns: int) -> None:
        """Mark the place `behind` bytes before the end of what is in the FIFO as received at `time_ns`.

        `time_ns` is CLOCK_REALTIME. What still waits to be written to the FIFO counts as negative. `edits` is a number
        that changes whenever something else than trades is added to the stream, or trades are taken out of it, so that
        `behind` may be wrong.
        """
        edited, self._edits = edits != self._edits, edits
        words = self._file.words
        if words is None or edited:
            return
        turn, taken = words[_TURN], words[_TAKEN]
        place = taken + pipes.unread(fifo) - behind
        if turn % 2 or words[_TURN] != turn or words[_READER] != os.fstat(fifo).st_ino or place < 0:
            return
        number = words[_MARKS]
        at = _FIRST + 2 * (number % _KEPT)
        words[at], words[at + 1] = place, time_ns
        words[_MARKS] = number + 1

    def close(self) -> None:
        """Leave the file to the next balancer."""
        self._file.unmap()


class MarkReader:
    """The worker's side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _File()
        self._marks = 0  # how many of them were looked at
        self._ahead: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        """Marks that aren't reached yet: place and time."""
        self._passed: deque[tuple[int, int]] = deque()
        """Where the latest reads ended, and when they were handled."""
        self._since = 0
        """Where the first of these began."""

    def attach(self, inode: int) -> None:
        """Count what is taken out of the FIFO of that inode. Marks of what an earlier reader took are left out."""
        self.close()
        self._ahead.clear()
        self._passed.clear()
        with contextlib.suppress(OSError):
            self._file.map(self._path)
        if (words := self._file.words) is None:
            return
        if words[_READER] != inode or words[_TURN] % 2:
            # Another FIFO's, or the reader before this one was killed before it had counted.
            words[_TURN] |= 1
            words[_READER], words[_TAKEN], words[_VALID] = inode, 0, words[_MARKS]
            words[_TURN] += 1
        self._marks = words[_VALID]
        self._since = words[_TAKEN]

    def taking(self) -> None:
        """Say that bytes are about to be taken out of the FIFO."""
        if (words := self._file.words) is not None:
            words[_TURN] += 1

    def took(self, count: int) -> None:
        """Count what was taken out."""
        if (words := self._file.words) is not None:
            words[_TAKEN] += count
            words[_TURN] += 1

    def handled(self, now_ns: int) -> None:
        """Note that all that was taken out is handled at `now_ns` (CLOCK_REALTIME)."""
        if (words := self._file.words) is not None:
            self._passed.append((words[_TAKEN], now_ns))
            if len(self._passed) > _PASSED:
                self._since, _ = self._passed.popleft()

    def latencies(self) -> Iterator[float]:
        """Give the seconds from receipt to handling of each mark that was passed since the last call."""
        if (words := self._file.words) is None:
            return
        if words[_MARKS] != self._marks:
            self._look(words)
        while self._passed and self._ahead and self._ahead[0][0] < self._passed[-1][0]:
            place, received_ns = self._ahead.popleft()
            if place >= self._since:
                _, handled_ns = self._passed[bisect_right(self._passed, place, key=lambda read: read[0])]
                yield max(0, handled_ns - received_ns) / 1e9

    def close(self) -> None:
        """Count no more."""
        self._file.unmap()

    def _look(self, words: memoryview) -> None:
        made = words[_MARKS]
        # At most as many as there are, whatever the file says.
        for number in range(max(self._marks, made - _KEPT), made):
            at = _FIRST + 2 * (number % _KEPT)
            self._ahead.append((words[at], words[at + 1]))
        self._marks = made


class _File:
    """A mapped file of marks."""

    def __init__(self) -> None:
        self.words: memoryview | None = None
        """Its words; None while none is mapped."""
        self._map: mmap.mmap | None = None

    def map(self, path: Path) -> bool:
        """Map the file; False if there is none, or it is something else."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != _SIZE:
                return False
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")
        if self.words[0] != _MAGIC or max(self.words[_TURN:_FIRST]) > _LARGEST:
            self.unmap()
        return self.words is not None

    def unmap(self) -> None:
        """Leave the file."""
        if self.words is not None and self._map is not None:
            self.words.release()
            self._map.close()
        self.words = self._map = None


def _make(path: Path) -> None:
    """Put an empty file of marks in the place of whatever is there."""
    partial = path.with_suffix(".partial")
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    try:
        os.fchmod(fd, 0o660)  # whatever the umask is: a worker may run as a member of the balancer's group
        # Else a full file system would show as SIGBUS at the first mark.
        os.posix_fallocate(fd, 0, _SIZE)
        os.pwrite(fd, struct.pack("Q", _MAGIC), 0)
    finally:
        os.close(fd)
    partial.replace(path)
