"""A handler that proves what came through: with numbered trades, loss and duplicates are a subtraction."""

from __future__ import annotations

import re
import time
from itertools import islice
from operator import lt
from pathlib import Path

import orjson

from tradebal.handlers.base import Context, Handler
from tradebal.stream.batch import Batch
from tradebal.stream.gap import Gap

_NUMBER = re.compile(rb'"q": ?(\d+)')
_SAMPLED = 64
"""Of the trades whose number is divisible by this, the time at which the handler saw them is kept."""


class Audit(Handler):
    """Checks the simulated market's sequence numbers (`q`, one more with each trade of the whole session).

    At the end it writes `audit-<shard>.json` into `report_directory`: how many trades came, how many were out of order
    or twice, how many had no number, the lowest and highest, the gaps announced, and pairs of sequence number and
    CLOCK_MONOTONIC time (ns) at which the handler had the trade.
    """

    def __init__(self, context: Context, *, report_directory: str) -> None:
        """Write the report into `report_directory`, which exists."""
        super().__init__(context)
        self._path = Path(report_directory) / f"audit-{context.shard}.json"
        self._trades = 0
        self._unnumbered = 0
        self._disordered = 0
        self._first = 0
        self._last = 0
        self._gaps: list[str] = []
        self._seen: list[tuple[int, int]] = []

    def on_trades(self, batch: Batch) -> None:
        """Check that numbers only grow: in a shard's stream, that means no duplicate and nothing out of order."""
        now = time.monotonic_ns()
        numbers = list(map(int, _NUMBER.findall(batch.raw)))
        self._trades += len(batch)
        self._unnumbered += len(batch) - len(numbers)
        if not numbers:
            return
        growing = sum(map(lt, numbers, islice(numbers, 1, None)))
        self._disordered += len(numbers) - 1 - growing + (numbers[0] <= self._last)
        self._first = self._first or numbers[0]
        self._last = numbers[-1]
        # The batch's first trade has waited longest.
        self._seen.append((numbers[0], now))
        self._seen.extend((number, now) for number in numbers if not number % _SAMPLED)

    def on_gap(self, gap: Gap) -> None:
        """Keep that a gap was announced."""
        self._gaps.append(gap.reason)

    def close(self) -> None:
        """Write the report."""
        report = {
            "trades": self._trades,
            "unnumbered": self._unnumbered,
            "disordered": self._disordered,
            "first": self._first,
            "last": self._last,
            "gaps": self._gaps,
            "seen": self._seen,
        }
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(orjson.dumps(report))
        partial.replace(self._path)
