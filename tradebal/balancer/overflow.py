"""Holds what a shard's full FIFO can't take, in order, up to a limit, so that nothing ever waits for a worker."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tradebal.stream import framing
from tradebal.stream.framing import Framing
from tradebal.stream.gap import Gap

_SEGMENT = 16 << 20
"""Bytes in one memory file; memory goes back to the system in steps of this size."""
_STEP = 1 << 20
"""Bytes moved into the FIFO by one splice call."""


class Keeper(Protocol):
    """Keeps a shard's memory files alive beyond this process; see tradebal.balancer.handover."""

    def park_overflow(self, shard: int, number: int, fd: int) -> None:
        """Keep this one too."""

    def forget_overflow(self, shard: int, number: int) -> None:
        """Let this one go."""


@dataclass
class _Segment:
    """A memory file. Its size and position say what is in it, so that they can be read again by another process."""

    number: int
    fd: int
    written: int = 0
    drained: int = 0


class Overflow:
    """One shard's queue behind its FIFO.

    Bytes wait in anonymous memory files, from which splice(2) moves them into the FIFO without a copy through this
    process. What is beyond the limit is dropped, newest first, in whole records, and counted exactly.
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
        """
        self.limit = limit
        """Bytes that may wait."""
        self._framing: Framing = record_framing
        self._announce = announce
        self._shard = shard
        self._keeper = keeper
        self._segments = deque(
            _Segment(number, fd, os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_CUR))
            for number, fd in (left or {}).items()
        )
        self._number = max(left or {}, default=0)
        self._gap_from_ns = 0
        self._gap_records = 0
        self.size = sum(segment.written - segment.drained for segment in self._segments)
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
            self._end_gap()
            self._append(data)
            return 0
        # The torn record's end must follow its beginning, or the FIFO's reader loses its place.
        room = max(0, self.limit - self.size - torn)
        fitting = framing.split(bytes(data[torn : torn + room]), self._framing)[0]
        if fitting:
            self._end_gap()
        self._append(data[: torn + fitting])
        self.added -= len(data) - torn - fitting
        lost = framing.split(bytes(data[torn + fitting :]), self._framing)[1]
        if not self._gap_records:
            self._gap_from_ns = time.time_ns()
        self._gap_records += lost
        self.dropped += lost
        return lost

    def drain(self, fifo: int) -> bool:
        """Move what waits into the non-blocking FIFO, as far as it takes it; True when nothing waits any more."""
        while True:
            while self._segments:
                segment = self._segments[0]
                left = segment.written - segment.drained
                if left:
                    try:
                        # From the file's own position, which so says what is done even if this process is killed.
                        moved = os.splice(segment.fd, fifo, min(left, _STEP))
                    except BlockingIOError:
                        return False
                    segment.drained += moved
                    self.size -= moved
                elif segment.written >= _SEGMENT or len(self._segments) == 1:
                    self._release(self._segments.popleft())
            if not self._gap_records:
                return True
            self._end_gap()

    def close(self) -> int:
        """Close the memory files, which a keeper keeps; returns the bytes that were still waiting."""
        if self._keeper:
            self._end_gap()
        left = self.size
        for segment in self._segments:
            os.close(segment.fd)
        self._segments.clear()
        self.size = 0
        return left

    def _append(self, data: memoryview) -> None:
        while data:
            if not self._segments or self._segments[-1].written >= _SEGMENT:
                self._grow()
            segment = self._segments[-1]
            count = os.pwrite(segment.fd, data[: _SEGMENT - segment.written], segment.written)
            segment.written += count
            self.size += count
            data = data[count:]

    def _grow(self) -> None:
        self._number += 1
        segment = _Segment(self._number, os.memfd_create("tradebal-overflow"))
        self._segments.append(segment)
        if self._keeper:
            self._keeper.park_overflow(self._shard, segment.number, segment.fd)

    def _release(self, segment: _Segment) -> None:
        os.close(segment.fd)
        if self._keeper:
            self._keeper.forget_overflow(self._shard, segment.number)

    def _end_gap(self) -> None:
        if not self._gap_records:
            return
        gap = Gap("overflow", self._gap_from_ns, time.time_ns(), self._gap_records)
        self._gap_records = 0
        if self._announce:
            record = framing.encode(gap.to_record(), self._framing)
            self.added += len(record)
            self._append(memoryview(record))
