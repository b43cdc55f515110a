"""The handler that only counts: what a worker costs at least, and whether trades arrive at all."""

from __future__ import annotations

import time

from tradebal.handlers.base import Context, Handler
from tradebal.stream.batch import Batch


class Count(Handler):
    """Counts trades, and logs how many they were and how fast they came."""

    def __init__(self, context: Context, *, interval: float = 10.0) -> None:
        """`interval`: seconds between two log lines; 0: only one at the end."""
        super().__init__(context)
        if not isinstance(interval, int | float) or interval < 0:
            raise ValueError(f"interval = {interval!r}: must be a number of seconds, 0 or more")
        self.trades = 0
        self._interval = interval
        self._logged_trades = 0
        self._logged_at = time.monotonic()

    def on_trades(self, batch: Batch) -> None:
        """Count them; nothing is decoded."""
        self.trades += len(batch)

    def on_tick(self, now: float) -> None:  # noqa: ARG002 - a rate needs the clock that never jumps
        """Log, if it is time to."""
        if self._interval and time.monotonic() - self._logged_at >= self._interval:
            self._log("counted")

    def close(self) -> None:
        """Log the total."""
        self._log("counted in all")

    def _log(self, what: str) -> None:
        now = time.monotonic()
        rate = (self.trades - self._logged_trades) / max(now - self._logged_at, 1e-9)
        self.context.log.info("%s: shard=%d trades=%d rate=%.0f/s", what, self.context.shard, self.trades, rate)
        self._logged_trades, self._logged_at = self.trades, now
