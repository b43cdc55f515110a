"""Marks in a shard's stream: when the balancer received what is there, so that the worker can measure how late it is.

Two small files beside the FIFO, in `marks/`, each written by one side only:

- `shard-N`, the balancer's: places in the reader's count, each with the time of its receipt.
- `shard-N.taken`, the worker's: which FIFO it reads, and how many bytes it has taken out of it.

The balancer adds what is still in the FIFO to what the worker has taken, and so knows at which count the stream's end
is, and any place before it. Neither side needs to know the other's past, and either may be restarted.

Neither side trusts the other's file, which the other may shorten, overwrite or replace at any time. So the files are
read and written by pread and pwrite (a mapping would fault on a file that was shortened) and each number is checked;
where a file is missing, short or makes no sense, there are no marks, and nothing raises.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tradebal.stream import pipes

_log = logging.getLogger(__name__)

# Both files consist of 64-bit words in this machine's byte order.
_HEAD = struct.Struct("=QQ")
"""The balancer's file begins with its magic number and how many marks were made."""
_MARK = struct.Struct("=QQ")
"""A mark: a place in the reader's count, and CLOCK_REALTIME in nanoseconds."""
_TAKEN = struct.Struct("=QQQQQ")
"""The worker's file: its magic number, and the fields of `_Taken`."""

_MAGIC = 0x324B52414D424454
_TAKEN_MAGIC = 0x324E454B41544254
"""Each of its file's layout."""
_KEPT = 1024
"""Marks in the file; the newest replaces the oldest."""
_SIZE = _HEAD.size + _KEPT * _MARK.size

_LARGEST = 1 << 62
"""No count or time comes that far."""

_PASSED = 4096
"""Reads that a reader remembers: a mark may be made a second after its place was read."""


def path_of(directory: Path, shard: int) -> Path:
    """Return where a shard's marks are, below the shards' directory."""
    return directory / "marks" / f"shard-{shard}"


class _Taken(NamedTuple):
    """What a worker tells of its reading."""

    inode: int = 0
    """The FIFO's; 0: none."""
    turn: int = 0
    """Odd while bytes are taken out and not counted yet."""
    total: int = 0
    """Bytes taken out."""
    outdated: int = 0
    """Marks that were made before the count began, and so mean nothing."""


class MarkWriter:
    """The balancer's side for one shard."""

    def __init__(self, path: Path) -> None:
        """Make the files, or go on with those that are there; a failure is logged, and there are no marks."""
        self._edits = 0
        self._made = 0
        self._file = _File()
        self._worker = _File()
        try:
            path.parent.mkdir(mode=0o750, exist_ok=True)
            if not self._file.open(path, os.O_RDWR) or (made := self._read_made()) is None:
                self._file.make(path, 0o640, _HEAD.pack(_MAGIC, 0), _SIZE)
                made = 0
            self._made = made
            taken = _taken_path(path)
            if not self._worker.open(taken, os.O_RDWR):
                self._worker.make(taken, 0o660, _pack(_Taken()), _TAKEN.size)
        except OSError as error:
            self.close()
            _log.warning("marks not written: file=%s error=%s: the latency is not measured", path, error.strerror)

    def mark(self, fifo: int, *, behind: int, edits: int, time_ns: int) -> None:
        """Mark the place `behind` bytes before the end of what is in the FIFO as received at `time_ns`.

        `time_ns` is CLOCK_REALTIME. What still waits to be written to the FIFO counts as negative. `edits` is a number
        that changes whenever something else than trades is added to the stream, or trades are taken out of it, so that
        `behind` may be wrong.
        """
        edited, self._edits = edits != self._edits, edits
        if edited or (taken := _read_taken(self._worker)) is None:
            return
        place = taken.total + pipes.unread(fifo) - behind
        if taken.turn % 2 or taken.inode != os.fstat(fifo).st_ino or _read_taken(self._worker) != taken:
            return
        if not (0 <= place <= _LARGEST and 0 < time_ns <= _LARGEST):
            return
        at = _HEAD.size + _MARK.size * (self._made % _KEPT)
        if self._file.write(at, _MARK.pack(place, time_ns)):
            self._made += 1
            self._file.write(0, _HEAD.pack(_MAGIC, self._made))

    def close(self) -> None:
        """Leave the files to the next balancer."""
        self._file.close()
        self._worker.close()

    def _read_made(self) -> int | None:
        return _read_made(self._file) if self._file.size() == _SIZE else None


class MarkReader:
    """The worker's side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _File()
        self._own = _File()
        self._taken = _Taken()
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
        try:
            there = self._file.open(self._path, os.O_RDONLY) and self._own.open(_taken_path(self._path), os.O_RDWR)
        except OSError:
            there = False
        made = _read_made(self._file) if there else None
        if made is None:
            self.close()
            return
        before = _read_taken(self._own)
        if before is None or before.inode != inode or before.turn % 2 or before.outdated > made:
            # Another FIFO's, or the reader before this one was killed before it had counted.
            turn = before.turn if before else 0
            self._store(_Taken(turn=turn | 1))
            self._store(_Taken(inode, (turn | 1) + 1, 0, made))
        else:
            self._taken = before
        self._marks = self._taken.outdated
        self._since = self._taken.total

    def taking(self) -> None:
        """Tell that bytes are about to be taken out of the FIFO."""
        if self._own.is_open:
            self._store(self._taken._replace(turn=self._taken.turn + 1))

    def took(self, count: int) -> None:
        """Count what was taken out."""
        if self._own.is_open:
            taken = self._taken
            self._store(taken._replace(turn=taken.turn + 1, total=taken.total + count))

    def handled(self, now_ns: int) -> None:
        """Note that all that was taken out is handled at `now_ns` (CLOCK_REALTIME)."""
        if self._own.is_open:
            self._passed.append((self._taken.total, now_ns))
            if len(self._passed) > _PASSED:
                self._since, _ = self._passed.popleft()

    def latencies(self) -> Iterator[float]:
        """Give the seconds from receipt to handling of each mark that was passed since the last call."""
        if not self._own.is_open:
            return
        self._look()
        while self._passed and self._ahead and self._ahead[0][0] < self._passed[-1][0]:
            place, received_ns = self._ahead.popleft()
            if place >= self._since:
                _, handled_ns = self._passed[bisect_right(self._passed, place, key=lambda read: read[0])]
                yield max(0, handled_ns - received_ns) / 1e9

    def close(self) -> None:
        """Count no more."""
        self._file.close()
        self._own.close()

    def _store(self, taken: _Taken) -> None:
        self._taken = taken
        # The counts are limited, so that they fit the words even where the file that they came from was forged.
        if not (taken.turn <= _LARGEST and taken.total <= _LARGEST) or not self._own.write(0, _pack(taken)):
            self.close()

    def _look(self) -> None:
        """Fetch the marks that were made since the last look."""
        made = _read_made(self._file)
        if made is None or made == self._marks:
            return
        # At most as many as there are, whatever the file says.
        for number in range(max(self._marks, made - _KEPT), made):
            data = self._file.read(_HEAD.size + _MARK.size * (number % _KEPT), _MARK.size)
            if data is None:
                break
            place, time_ns = _MARK.unpack(data)
            if place <= _LARGEST and 0 < time_ns <= _LARGEST:
                self._ahead.append((place, time_ns))
        self._marks = made


class _File:
    """A file of marks, of which the other side may have made anything."""

    def __init__(self) -> None:
        self._fd = -1

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def open(self, path: Path, flags: int) -> bool:
        """Open a regular file; False if there is none, or something else. Raises OSError if it may not be opened."""
        try:
            self._fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.close()
        return self.is_open

    def make(self, path: Path, mode: int, data: bytes, size: int) -> None:
        """Put a new file of `size` bytes, which begins with `data`, in the place of whatever is there; OSError."""
        self.close()
        partial = path.with_name(f".{path.name}.partial")
        # Not reopened: whoever may write to the directory could have put something else there.
        partial.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(partial, flags, mode)
        os.fchmod(self._fd, mode)  # whatever the umask is: the worker is another user, of the balancer's group
        os.posix_fallocate(self._fd, 0, size)
        os.pwrite(self._fd, data, 0)
        partial.replace(path)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, at: int, size: int) -> bytes | None:
        """Return `size` bytes from there; None if there are fewer."""
        if self._fd < 0:
            return None
        try:
            data = os.pread(self._fd, size, at)
        except OSError:
            return None
        return data if len(data) == size else None

    def write(self, at: int, data: bytes) -> bool:
        """Write there, and tell whether all of it was written."""
        if self._fd < 0:
            return False
        try:
            return os.pwrite(self._fd, data, at) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _taken_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.taken")


def _read_made(file: _File) -> int | None:
    """Return how many marks the balancer made; None where that can't be told."""
    if (data := file.read(0, _HEAD.size)) is None:
        return None
    magic, made = _HEAD.unpack(data)
    return int(made) if magic == _MAGIC and made <= _LARGEST else None


def _read_taken(file: _File) -> _Taken | None:
    """Return what the worker tells; None where that makes no sense."""
    if (data := file.read(0, _TAKEN.size)) is None:
        return None
    magic, *words = _TAKEN.unpack(data)
    return _Taken(*words) if magic == _TAKEN_MAGIC and max(words) <= _LARGEST else None


def _pack(taken: _Taken) -> bytes:
    return _TAKEN.pack(_TAKEN_MAGIC, *taken)
