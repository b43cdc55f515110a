"""Makes whole records of whatever pieces the kernel returns, without ever losing or doubling one. No I/O here."""

from __future__ import annotations

from tradebal import framing
from tradebal.router.interface import MAX_RECORD, Framing

_LONGEST = MAX_RECORD + 4
"""Bytes of the longest framed record, in either framing."""


class RecordBuffer:
    """Bytes of one FIFO in, runs of whole records out.

    Fill `space()`, call `received`. Bytes that can't belong to a record are dropped, and that is said: the rest of a
    record whose beginning a killed reader took with it, and damage.
    """

    def __init__(self, kind: Framing, read_size: int) -> None:
        """`read_size`: bytes of room that `space` offers."""
        self._kind = kind
        self._read_size = read_size
        self._bytes = bytearray(read_size + _LONGEST)
        self._view = memoryview(self._bytes)
        self._held = 0
        self._synced = False  # whether a record is known to begin at the buffer's start
        self._skipping = False  # ndjson: whether everything up to the next line feed is to be dropped
        self._dropped = 0  # bytes dropped and not reported yet

    @property
    def held(self) -> int:
        """Bytes of the incomplete record at the end of what was received."""
        return self._held

    @property
    def missing(self) -> int:
        """How many bytes can be read without reading beyond the incomplete record; 1 where that isn't known."""
        if self._kind == "ndjson":
            return 1
        if self._held < 4:
            return 4 - self._held
        return max(1, 4 + int.from_bytes(self._bytes[:4], "little") - self._held)

    def space(self) -> memoryview:
        """Where the next bytes belong."""
        return self._view[self._held : self._held + self._read_size]

    def received(self, count: int) -> list[bytes | int]:
        """Say that `count` bytes were put at the start of `space()`; returns what became whole, in order.

        Bytes are whole records, framed; a number tells how many bytes were dropped at that place.
        """
        size = self._held + count
        pieces: list[bytes | int] = []
        taken = self._take_lines(size, pieces) if self._kind == "ndjson" else self._take_length32(size, pieces)
        self._held = size - taken
        self._view[: self._held] = self._view[taken:size]
        return pieces

    def clear(self) -> int:
        """Forget the incomplete record, since no more of it will come; returns how many bytes of it there were."""
        torn = self._held + self._dropped
        self._held = self._dropped = 0
        self._synced = self._skipping = False
        return torn

    def _take_lines(self, size: int, pieces: list[bytes | int]) -> int:
        """Append what is whole in the first `size` bytes; returns how many bytes are done with."""
        if not self._synced and size:
            # Every trade is an object; what begins otherwise is the rest of a line whose beginning is gone.
            self._skipping = self._bytes[0] not in b"{\n"
            self._synced = True
        start = 0
        if self._skipping:
            start = self._bytes.find(b"\n", 0, size) + 1
            if start == 0:
                self._dropped += size
                return size
            pieces.append(self._dropped + start)
            self._dropped = 0
            self._skipping = False
        end = max(start, self._bytes.rfind(b"\n", start, size) + 1)
        if end > start:
            pieces.append(bytes(self._view[start:end]))
        if size - end >= _LONGEST:
            self._skipping = True
            self._dropped = size - end
            return size
        return end

    def _take_length32(self, size: int, pieces: list[bytes | int]) -> int:
        """As `_take_lines`."""
        data = bytes(self._view[:size])
        start = 0
        while True:
            if not self._synced:
                begin, self._synced = framing.resync(data, start)
                self._dropped += begin - start
                start = begin
                if not self._synced:
                    return start
                if self._dropped:
                    pieces.append(self._dropped)
                    self._dropped = 0
            try:
                end = start + framing.split(data[start:], "length32")[0]
            except framing.FramingError as error:
                end = start + error.offset
                self._synced = False
            if end > start:
                pieces.append(data[start:end])
                start = end
            if self._synced:
                return start
