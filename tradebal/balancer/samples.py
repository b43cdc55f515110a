"""Looks into a few trades a second, to tell how late they come and which symbols trade most."""

from __future__ import annotations

import heapq
from collections import deque

import orjson

from tradebal.balancer.watch import WINDOW, Extremes
from tradebal.monitoring.histogram import Histogram
from tradebal.router.interface import Sample
from tradebal.stream.trade_time import time_ns

SPACING_NS = 40_000_000
"""Time between two samples, in nanoseconds: 25 a second cost the data path a thousandth of its time."""

LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Buckets for the time that a trade was under way, in seconds."""

TOP = 20
"""Symbols that are shown."""

_SLOT = 5
"""Seconds of trades that are counted together."""
_KEPT = 500
"""Symbols of a past slot that are remembered: many more than can be among the top ones."""
_LONGEST = 64
"""Characters of a symbol that are shown."""


class Samples:
    """What samples of the routed trades tell. Each stands for the trades since the one before it."""

    def __init__(self, symbol_key: bytes, time_key: str) -> None:
        """Look under these keys of a trade; without a `time_key`, nothing is said about lag."""
        self._symbol_key = symbol_key.decode("utf-8", "replace")
        self._time_key = time_key
        self._trades = 0
        self._slots: deque[tuple[int, dict[str, float]]] = deque(maxlen=WINDOW // _SLOT)
        self.lag = Histogram(*LAGS)
        """Seconds from a trade's own time to its routing; less than none counts as none."""
        self.lags = Extremes()
        """The same, as measured: below zero, two clocks disagree."""

    def add(self, sample: Sample, trades: int) -> None:
        """Take in a sample; `trades` is the router's total."""
        try:
            decoded = orjson.loads(b"[" + sample.trades + b"]")
        except orjson.JSONDecodeError:  # what the router doesn't look at may be malformed
            return
        weight = (trades - self._trades) / len(decoded)
        self._trades = trades
        second = sample.time_ns // 1_000_000_000
        counts = self._counts(second // _SLOT)
        for trade in decoded:
            if isinstance(symbol := trade.get(self._symbol_key), str):
                symbol = symbol[:_LONGEST]
                counts[symbol] = counts.get(symbol, 0.0) + weight
        if self._time_key and (at := time_ns(decoded[0].get(self._time_key))) is not None:
            lag = (sample.time_ns - at) / 1e9
            self.lag.observe(max(0.0, lag))
            self.lags.add(second, lag)

    def top(self, second: int) -> list[tuple[str, int]]:
        """Return the symbols with the most trades in the minute that ends with `second`, estimated, most first."""
        oldest = second // _SLOT - WINDOW // _SLOT
        total: dict[str, float] = {}
        for slot, counts in self._slots:
            if slot > oldest:
                for symbol, count in counts.items():
                    total[symbol] = total.get(symbol, 0.0) + count
        return [(symbol, round(count)) for symbol, count in _most(TOP, total)]

    def _counts(self, slot: int) -> dict[str, float]:
        if not self._slots or self._slots[-1][0] < slot:
            if self._slots:
                before, counts = self._slots[-1]
                self._slots[-1] = before, dict(_most(_KEPT, counts))
            self._slots.append((slot, {}))
        return self._slots[-1][1]


def _most(count: int, symbols: dict[str, float]) -> list[tuple[str, float]]:
    return heapq.nlargest(count, symbols.items(), key=lambda item: item[1])
