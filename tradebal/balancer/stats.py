"""Says how fast the market flows: a line for each run of 8192 trades, and one for each new highest and lowest rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tradebal.router.interface import BATCH_TRADES, Batch
from tradebal.systemd import events
from tradebal.systemd.events import Event
from tradebal.systemd.journal import Journal
from tradebal.systemd.log import IDENTIFIER
from tradebal.systemd.output import Output

_LINES_PER_SECOND = 100
_SPACING_NS = 1_000_000_000 // _LINES_PER_SECOND


_PENDING_LIMIT = 64 << 10
"""Bytes of lines that wait for a reader who has stopped reading."""


class LineWriter:
    """Writes lines to a descriptor that may stand still (a paused terminal, a busy journal) without ever waiting.

    Lines beyond 64 KiB that nobody takes are left out; the totals in later lines are right all the same.
    """

    def __init__(self, fd: int) -> None:
        """Write to `fd`, which stays in the mode it is in: others may share it."""
        self._output = Output(fd)
        self._pending = b""
        self._torn = False

    def write(self, text: str) -> None:
        """Write the lines now, or with a later call's."""
        self._pending += text.encode()
        try:
            while self._pending and (written := self._output.write(self._pending)):
                self._torn = self._pending[written - 1] != ord("\n")
                self._pending = self._pending[written:]
        except OSError:  # its reader is gone; the data path goes on
            self._pending, self._torn = b"", False
        if len(self._pending) > _PENDING_LIMIT:
            # The rest of a line whose beginning is written already must still come, or the next one joins it.
            self._pending = self._pending[: self._pending.index(b"\n") + 1] if self._torn else b""


class JournalLines:
    """Writes lines to the journal, with the rate as a field; it never waits either."""

    def __init__(self, journal: Journal) -> None:
        """Write there."""
        self._journal = journal

    def note(self, line: str, event: Event, rate: float) -> bool:
        """Write one line; False if the journal has no room."""
        fields = {"MESSAGE": line, "PRIORITY": 6, "SYSLOG_IDENTIFIER": IDENTIFIER, "RATE": round(rate)}
        return self._journal.send(fields | event()["journal"])


def rate(batch: Batch) -> float:
    """Trades per second over the batch."""
    return BATCH_TRADES * 1e9 / batch.elapsed_ns


class StatsLines:
    """Turns batches into lines.

    The line's fields and their order are those of the founding system (mattsta/trade-balancer), so that what was
    written to read its log goes on working:

        [epoch.5 digits] Rate {r reads} {f frames} {f/r} {t/f} {tt trades on this connection}
        {ttt trades in this lifetime} {br bytes this batch} {bt bytes in all}: rate t/s

    r and br are 0 while a batch comes from what was already buffered. Beyond 100 lines a second, batches share a
    line, which then ends in how many it stands for; highest and lowest stay those of single batches.
    """

    def __init__(self, write: Callable[[str], object], note: Callable[[str, Event, float], bool] | None = None) -> None:
        """Give each line, with its line end, to `write`; or, with `note`, to that, with its kind and its trades/s,
        which returns whether there was room for it.
        """
        self._write = write
        self._note = note
        self._held: list[Batch] = []
        self._next_ns = 0
        self.silent = False
        """Whether rates are followed without a line."""
        self.highest = 0.0
        """Highest rate of a batch since the start, in trades per second; 0 before the first batch."""
        self.lowest = math.inf
        """Lowest rate of a batch since the start, in trades per second."""
        self.last = 0.0
        """Rate of the latest batch, in trades per second."""

    def add(self, batches: Iterable[Batch]) -> None:
        """Take in batches, oldest first, and write the lines that are due."""
        for batch in batches:
            self.last = speed = rate(batch)
            if speed > self.highest:
                self.highest = speed
                self._emit(f"new highest rate {speed:.2f} t/s at {batch.time_ns / 1e9:.5f}", events.HIGHEST_RATE, speed)
            if speed < self.lowest:
                self.lowest = speed
                self._emit(f"new lowest rate {speed:.2f} t/s at {batch.time_ns / 1e9:.5f}", events.RATE, speed)
            self._held.append(batch)
            # What finds no room is part of the next line.
            if batch.time_ns >= self._next_ns and self._emit(*self._line()):
                self._held.clear()
                self._next_ns = batch.time_ns + _SPACING_NS

    def finish(self) -> None:
        """Write the line of the batches that share one which wasn't due yet."""
        if self._held and not self._emit(*self._line()):
            self._write(f"{self._line()[0]}\n")

    def _emit(self, text: str, event: Event, speed: float) -> bool:
        if self.silent:
            return True
        if self._note:
            return self._note(text, event, speed)
        self._write(f"{text}\n")
        return True

    def _line(self) -> tuple[str, Event, float]:
        held = self._held
        last = held[-1]
        reads = sum(batch.reads for batch in held)
        frames = sum(batch.frames for batch in held)
        received = sum(batch.bytes for batch in held)
        trades = BATCH_TRADES * len(held)
        speed = trades * 1e9 / sum(batch.elapsed_ns for batch in held)
        fields = {
            "r": reads,
            "f": frames,
            "f/r": f"{frames / reads if reads else 0:.2f}",
            "t/f": f"{trades / frames if frames else 0:.2f}",
            "tt": last.connection_trades,
            "ttt": last.total_trades,
            "br": received,
            "bt": last.total_bytes,
        }
        line = " ".join(f"{{{name} {value}}}" for name, value in fields.items())
        shared = f" ({len(held)} batches)" if len(held) > 1 else ""
        return f"[{last.time_ns / 1e9:.5f}] Rate {line}: {speed:.2f} t/s{shared}", events.RATE, speed
