"""Holds what a shard's full FIFO can't take, in order, up to a limit, so that nothing ever waits for a worker."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass

from tradebal import framing
from tradebal.gap import Gap
from tradebal.router.interface import Framing

_SEGMENT = 16 << 20
"""Bytes in one memory file; memory goes back to the system in steps of this size."""
_STEP = 1 << 20
"""Bytes moved into the FIFO by one splice call."""


@dataclass
class _Segment:
    fd: int
    written: int = 0
    drained: int = 0


class Overflow:
    """One shard's queue behind its FIFO.

    Bytes wait in anonymous memory files, from which splice(2) moves them into the FIFO without a copy through this
    process. What is beyond the limit is dropped, newest first, in whole records, and counted exactly.
    """

    def __init__(self, limit: int, record_framing: Framing, *, announce: bool) -> None:
        """Queue up to `limit` bytes; with `announce`, a gap record stands where records were dropped."""
        self.limit = limit
        """Bytes that may wait."""
        self._framing: Framing = record_framing
        self._announce = announce
        self._segments: deque[_Segment] = deque()
        self._gap_from_ns = 0
        self._gap_records = 0
        self.size = 0
        """Bytes waiting."""
        self.dropped = 0
        """Records dropped since the start."""
        self.added = 0
        """Bytes since the start by which more was queued than put (gap records); negative where drops outweigh."""

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
                        moved = os.splice(segment.fd, fifo, min(left, _STEP), offset_src=segment.drained)
                    except BlockingIOError:
                        return False
                    segment.drained += moved
                    self.size -= moved
                elif segment.written >= _SEGMENT or len(self._segments) == 1:
                    os.close(self._segments.popleft().fd)
            if not self._gap_records:
                return True
            self._end_gap()

    def close(self) -> int:
        """Give everything up; returns the bytes that were still waiting."""
        left = self.size
        for segment in self._segments:
            os.close(segment.fd)
        self._segments.clear()
        self.size = 0
        return left

    def _append(self, data: memoryview) -> None:
        while data:
            if not self._segments or self._segments[-1].written >= _SEGMENT:
                self._segments.append(_Segment(os.memfd_create("tradebal-overflow")))
            segment = self._segments[-1]
            count = os.write(segment.fd, data[: _SEGMENT - segment.written])
            segment.written += count
            self.size += count
            data = data[count:]

    def _end_gap(self) -> None:
        if not self._gap_records:
            return
        gap = Gap("overflow", self._gap_from_ns, time.time_ns(), self._gap_records)
        self._gap_records = 0
        if self._announce:
            record = framing.encode(gap.to_record(), self._framing)
            self.added += len(record)
            self._append(memoryview(record))
