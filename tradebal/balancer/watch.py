"""Keeps what the metrics show beyond the router's counters: batches, events by kind, and when something came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tradebal.balancer.stats import rate
from tradebal.monitoring.histogram import Histogram
from tradebal.router.interface import BATCH_TRADES, REJECT_REASONS, Batch, Event, EventKind

_RATES = (1e2, 5e2, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 5e7)
"""Trades per second: from a quiet pre-market to more than one core can take."""
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_BYTES = (0, *(1 << power for power in range(16, 25)))

WINDOW = 60
"""Seconds that "the last minute" has."""


class Extremes:
    """The highest and the lowest value of the last minute, to within a second, in bounded memory."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float, float]] = deque(maxlen=WINDOW + 1)
        """(second, lowest, highest) of each second that had a value."""

    def add(self, second: int, value: float) -> None:
        """Take in a value; `second` never goes back."""
        seconds = self._seconds
        if seconds and seconds[-1][0] >= second:
            last, lowest, highest = seconds[-1]
            seconds[-1] = (last, min(lowest, value), max(highest, value))
        else:
            seconds.append((second, value, value))

    def lowest(self, second: int) -> float:
        """Return the lowest value of the minute that ends with `second`; 0 if there was none."""
        return min((low for at, low, _ in self._seconds if at > second - WINDOW), default=0.0)

    def highest(self, second: int) -> float:
        """Return the highest value of the minute that ends with `second`; 0 if there was none."""
        return max((high for at, _, high in self._seconds if at > second - WINDOW), default=0.0)


class Watch:
    """What the balancer's loop notes as it goes, once a batch, event or read; never once a trade."""

    def __init__(self) -> None:
        self.rate = Histogram(*_RATES)
        """Trades per second, of each batch; likewise those that follow."""
        self.reads = Histogram(0, *_COUNTS)
        self.frames = Histogram(*_COUNTS)
        self.trades_per_frame = Histogram(*_COUNTS)
        self.bytes = Histogram(*_BYTES)
        self.rates = Extremes()
        self.kinds = dict.fromkeys(EventKind, 0)
        """Events by kind."""
        self.rejects = dict.fromkeys(REJECT_REASONS, 0)
        """Events of kind REJECT by reason."""
        self.last_data_ns = 0
        """When bytes came last, CLOCK_REALTIME in nanoseconds; 0: never."""
        self.last_trade_ns = 0
        """When trades came last, likewise."""
        self._trades = 0

    def add(self, batches: Iterable[Batch]) -> None:
        """Take in completed batches, oldest first."""
        for batch in batches:
            speed = rate(batch)
            self.rate.observe(speed)
            self.reads.observe(batch.reads)
            self.frames.observe(batch.frames)
            # A batch may end within a frame that began in the one before it.
            self.trades_per_frame.observe(BATCH_TRADES / (batch.frames or 1))
            self.bytes.observe(batch.bytes)
            self.rates.add(batch.time_ns // 1_000_000_000, speed)

    def event(self, event: Event) -> None:
        """Count an event."""
        self.kinds[event.kind] += 1
        if event.kind is EventKind.REJECT:
            self.rejects[event.reason] = self.rejects.get(event.reason, 0) + 1

    def received(self, now_ns: int, trades: int) -> None:
        """Note that bytes came; `trades` is the router's total."""
        self.last_data_ns = now_ns
        if trades != self._trades:
            self._trades = trades
            self.last_trade_ns = now_ns
