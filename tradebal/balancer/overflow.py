"""Holds what a shard's full FIFO can't take, in order, up to a limit, so that nothing ever waits for a worker."""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tradebal.stream import framing
from tradebal.stream.framing import Framing
from tradebal.stream.gap import Gap

_RETURNED = 16 << 20
"""Bytes that are drained before their memory goes back to the system. A power of two above any page's size, so that no
page is cut: the FIFO may still refer to it."""
_STEP = 1 << 20
"""Bytes moved into the FIFO by one splice call."""

_PUNCH_HOLE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (fallocate(2))."""
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Keeper(Protocol):
    """Keeps a shard's memory files alive beyond this process; see tradebal.balancer.handover."""

    def park_overflow(self, shard: int, number: int, fd: int) -> None:
        """Keep this one too."""

    def forget_overflow(self, shard: int, number: int) -> None:
        """Let this one go."""


@dataclass
class _File:
    """A memory file. Its size and position say what is in it, so that another process can read it on."""

    number: int
    fd: int
    written: int = 0
    drained: int = 0
    returned: int = 0
    """Bytes at its beginning whose memory the system has back."""


class Overflow:
    """One shard's queue behind its FIFO.

    Bytes wait in one anonymous memory file, from which splice(2) moves them into the FIFO without a copy through this
    process. It is made at once and kept, so that a full FIFO never needs a descriptor that may not be granted. What is
    beyond the limit, or beyond the memory that is granted, is dropped, newest first, in whole records, and counted
    exactly.
    """

    def __init__(
        self,
        limit: int,
        record_framing: Framing,
        *,
        announce: bool,
        shard: int = 0,
        keeper: Keeper | None = None,
        left: Mapping[int, int] | None = None,
    ) -> None:
        """Queue up to `limit` bytes; with `announce`, a gap record stands where records were dropped.

        `keeper` is told of each memory file; `left` are those of an earlier process, oldest first, by number.

        Raises OSError where no memory file can be made.
        """
        self.limit = limit
        """Bytes that may wait."""
        self._framing: Framing = record_framing
        self._announce = announce
        self._shard = shard
        self._keeper = keeper
        self._files = deque(_opened(number, fd) for number, fd in (left or {}).items())
        if not self._files:
            self._files.append(_File(1, os.memfd_create("tradebal-overflow")))
            if keeper:
                keeper.park_overflow(shard, 1, self._files[-1].fd)
        self._gap_from_ns = 0
        self._gap_records = 0
        self.size = sum(file.written - file.drained for file in self._files)
        """Bytes waiting."""
        self.dropped = 0
        """Records dropped since the start."""
        self.added = 0
        """Bytes since the start by which more was queued than put (gap records); negative where drops outweigh."""

    def reconfigure(self, *, announce: bool) -> None:
        """Announce gaps from now on, or don't."""
        self._announce = announce

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.size >= self.limit

    def put(self, data: memoryview, torn: int, *, drop: bool) -> int:
        """Queue `data`, of which the first `torn` bytes end a record that the FIFO has the beginning of.

        With `drop`, whole records that don't fit the limit are left out; their number is returned. Without, all is
        taken, a little beyond the limit if need be.
        """
        if not drop or self.size + len(data) <= self.limit:
            try:
                self._end_gap()
                self._append(data)
            except OSError:  # no more memory is granted: as if the limit were here
                return self._drop(data, torn, 0)
            return 0
        room = max(0, self.limit - self.size - torn)
        return self._drop(data, torn, framing.split(bytes(data[torn : torn + room]), self._framing)[0])

    def _drop(self, data: memoryview, torn: int, fitting: int) -> int:
        """Queue the first `torn` + `fitting` bytes, drop the records behind them; returns how many these are."""
        if fitting:
            self._end_gap()
        # The torn record's end must follow its beginning, or the FIFO's reader loses its place.
        self._append(data[: torn + fitting])
        self.added -= len(data) - torn - fitting
        lost = framing.split(bytes(data[torn + fitting :]), self._framing)[1]
        if not self._gap_records:
            self._gap_from_ns = time.time_ns()
        self._gap_records += lost
        self.dropped += lost
        return lost

    def cut_torn_end(self) -> int:
        """Leave out an incomplete record at the end, which a process that was killed left; returns its bytes."""
        file = self._files[-1]
        begin = max(file.drained, file.written - 4 * framing.MAX_RECORD)
        torn = framing.torn_end(os.pread(file.fd, file.written - begin, begin), self._framing)
        os.ftruncate(file.fd, file.written - torn)
        file.written -= torn
        self.size -= torn
        return torn

    def drain(self, fifo: int) -> bool:
        """Move what waits into the non-blocking FIFO, as far as it takes it; True when nothing waits any more."""
        while True:
            while self.size:
                file = self._files[0]
                if left := file.written - file.drained:
                    try:
                        # From the file's own position, which so says what is done even if this process is killed.
                        moved = os.splice(file.fd, fifo, min(left, _STEP))
                    except BlockingIOError:
                        return False
                    file.drained += moved
                    self.size -= moved
                    _give_back(file)
                else:
                    self._release(self._files.popleft())
            _empty(self._files[-1])
            if not self._gap_records:
                return True
            self._end_gap()

    def close(self) -> int:
        """Close the memory files, which a keeper keeps; returns the bytes that were still waiting."""
        if self._keeper:
            self._end_gap()
        left = self.size
        for file in self._files:
            os.close(file.fd)
        self._files.clear()
        self.size = 0
        return left

    def _append(self, data: memoryview) -> None:
        """Queue all of it, or raise OSError and queue nothing."""
        file = self._files[-1]
        written = file.written
        try:
            while data:
                count = os.pwrite(file.fd, data, written)
                written += count
                data = data[count:]
        except OSError:
            os.ftruncate(file.fd, file.written)
            raise
        self.size += written - file.written
        file.written = written

    def _release(self, file: _File) -> None:
        os.close(file.fd)
        if self._keeper:
            self._keeper.forget_overflow(self._shard, file.number)

    def _end_gap(self) -> None:
        if not self._gap_records:
            return
        gap = Gap("overflow", self._gap_from_ns, time.time_ns(), self._gap_records)
        if self._announce:
            record = framing.encode(gap.to_record(), self._framing)
            self._append(memoryview(record))
            self.added += len(record)
        self._gap_records = 0


def _opened(number: int, fd: int) -> _File:
    written, drained = os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_CUR)
    file = _File(number, fd, written, min(written, drained))
    if drained > written:  # killed while it was emptied
        os.lseek(fd, written, os.SEEK_SET)
    return file


def _give_back(file: _File) -> None:
    """Return the memory of what is drained to the system; where that fails, `_empty` does it later."""
    whole = file.drained // _RETURNED * _RETURNED
    if whole > file.returned:
        _fallocate(file.fd, _PUNCH_HOLE, file.returned, whole - file.returned)
        file.returned = whole


def _empty(file: _File) -> None:
    """Begin the file anew. In this order: a kill in between leaves a position behind the end, never one before it."""
    os.ftruncate(file.fd, 0)
    os.lseek(file.fd, 0, os.SEEK_SET)
    file.written = file.drained = file.returned = 0
