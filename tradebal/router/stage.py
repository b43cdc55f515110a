"""Holds what one shard is to get until its output, or the caller, takes it."""

from __future__ import annotations

import os

from tradebal.stream.framing import MAX_RECORD, Framing

THRESHOLD = 64 << 10
"""Staged bytes above which a shard is written before its turn comes."""

CAPACITY = THRESHOLD + MAX_RECORD + (4 << 10)
"""Most bytes that are staged for a shard."""

_LENGTH_SIZE = 4


class Stage:
    """Staged records of one shard."""

    def __init__(self, framing: Framing) -> None:
        self.fd = -1
        self.stalled = False
        self.trades = 0
        self.bytes = 0
        self.writes = 0
        self.written = 0
        self._framing = framing
        # Always begins with a record's beginning, so that the rest of a torn record can be told.
        self._data = bytearray()
        self._taken = 0

    def __len__(self) -> int:
        """Return how many bytes wait."""
        return len(self._data) - self._taken

    @property
    def writable(self) -> bool:
        """Whether an output is there that may take more."""
        return self.fd >= 0 and not self.stalled

    def append(self, record: bytes) -> bool:
        """Stage a framed record; False if there is no room for it."""
        framing = _LENGTH_SIZE if self._framing == "length32" else 1
        if len(self) + len(record) + framing > CAPACITY:
            return False
        if self._framing == "length32":
            self._data += len(record).to_bytes(_LENGTH_SIZE, "little")
            self._data += record
        else:
            self._data += record
            self._data += b"\n"
        return True

    def pending(self) -> memoryview:
        """Return the bytes that wait: a copy, since a bytearray of which someone holds a view can't grow."""
        return memoryview(bytes(self._data[self._taken :]))

    def take(self, count: int) -> None:
        """Forget the first `count` bytes that wait; ValueError if they aren't there."""
        if not 0 <= count <= len(self):
            raise ValueError(f"{count} bytes reported as sent, {len(self)} are pending")
        self._taken += count
        start = 0
        while (end := self._record_end(start)) <= self._taken and start < end:
            start = end
        del self._data[:start]
        self._taken -= start

    def torn(self) -> int:
        """Return how many bytes wait of a record whose beginning was taken."""
        return self._record_end(0) - self._taken if self._taken else 0

    def write(self) -> None:
        """Write what waits to the output; stalled if it doesn't take all."""
        if not self._data or not self.writable:
            return
        waiting = len(self)
        try:
            with memoryview(self._data) as view:
                count = os.write(self.fd, view[self._taken :])
        except OSError:
            count = 0
        if count:
            self.writes += 1
            self.written += count
            self.take(count)
        self.stalled = count < waiting

    def _record_end(self, start: int) -> int:
        """Return where the record at `start` ends; `start` itself at the end of the data."""
        if start == len(self._data):
            return start
        if self._framing == "length32":
            length = int.from_bytes(self._data[start : start + _LENGTH_SIZE], "little")
            return start + _LENGTH_SIZE + length
        return self._data.index(b"\n", start) + 1
