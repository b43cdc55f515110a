"""Makes whole records of whatever pieces the kernel returns, without ever losing or doubling one. No I/O here."""

from __future__ import annotations

from collections.abc import Callable

from tradebal.stream import framing
from tradebal.stream.framing import MAX_RECORD, Framing

_LONGEST = MAX_RECORD + 4
"""Bytes of the longest framed record, in either framing."""

_LONG = 4096
"""Bytes from which on a record's beginning is kept here rather than seen again and again. So many fill some of a pipe's
pages, of which there are 16 or more: a shorter beginning always leaves room for its rest."""


class RecordBuffer:
    """Bytes of one FIFO in, runs of whole records out.

    Bytes that can't belong to a record are dropped, and that is said: the rest of a record whose beginning a killed
    reader took with it, and damage.
    """

    def __init__(self, kind: Framing) -> None:
        self._kind = kind
        self._held = b""
        self._dropped = 0  # bytes dropped and not reported yet
        self._synced = False  # whether a record is known to begin where the next bytes belong
        self._skipping = False  # ndjson: whether everything up to the next line feed is to be dropped
        self.left = 0
        """Bytes of an incomplete record that are to be given again."""

    @property
    def kept(self) -> int:
        """Bytes that were received and are in no piece yet, but need not be given again."""
        return len(self._held) + self._dropped

    def received(self, data: bytes, more: Callable[[], bool]) -> list[bytes | int]:
        """Take what follows in the stream; returns what became whole, in order.

        Bytes are whole records, framed; a number tells how many bytes were dropped at that place. What follows them is
        to be given again, together with what comes after it, unless it is `kept`: a long record's beginning, or any
        beginning to which `more()` can't be added, since only so many bytes can be given at once.
        """
        held = len(self._held)
        if self._kind == "ndjson" and self._synced and not self._skipping and not held and data.endswith(b"\n"):
            self.left = 0
            return [data]  # as nearly always, and sooner than by what follows
        data = self._held + data
        pieces: list[bytes | int] = []
        taken = self._take_lines(data, pieces) if self._kind == "ndjson" else self._take_length32(data, pieces)
        left = len(data) - taken
        keeps = taken < held or left >= _LONG or (left > 0 and not taken and more())
        self._held, self.left = (data[taken:], 0) if keeps else (b"", left)
        return pieces

    def clear(self) -> int:
        """Forget the incomplete record, since no more of it will come; returns how many bytes of it there were."""
        torn = self.kept + self.left
        self._held = b""
        self._dropped = self.left = 0
        self._synced = self._skipping = False
        return torn

    def _take_lines(self, data: bytes, pieces: list[bytes | int]) -> int:
        """Append what is whole; returns how many bytes are done with."""
        size = len(data)
        if not self._synced and size:
            # Every trade is an object; what begins otherwise is the rest of a line whose beginning is gone.
            self._skipping = data[0] not in b"{\n"
            self._synced = True
        start = 0
        if self._skipping:
            start = data.find(b"\n") + 1
            if start == 0:
                self._dropped += size
                return size
            pieces.append(self._dropped + start)
            self._dropped = 0
            self._skipping = False
        end = max(start, data.rfind(b"\n", start) + 1)
        if end > start:
            pieces.append(data[start:end])
        if size - end >= _LONGEST:
            self._skipping = True
            self._dropped = size - end
            return size
        return end

    def _take_length32(self, data: bytes, pieces: list[bytes | int]) -> int:
        """As `_take_lines`."""
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
