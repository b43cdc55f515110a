"""The line that `systemctl status` shows: how the connection does, how fast trades come, how many came today."""

from __future__ import annotations

import datetime
import zoneinfo


def _market_time() -> datetime.tzinfo:
    try:
        return zoneinfo.ZoneInfo("America/New_York")
    except (zoneinfo.ZoneInfoNotFoundError, OSError):  # a system without tzdata
        return datetime.UTC


class Today:
    """Counts the trades of the market's day, from midnight to midnight in New York."""

    def __init__(self, day: str = "", trades: int = 0) -> None:
        """Go on from a day (2026-11-20) and its number of trades, as an earlier process left them."""
        self._zone = _market_time()
        self.day = day
        self.trades = trades
        self.rate = 0.0
        """Trades per second between the last two calls of `update`."""
        self._total = 0
        self._at: float | None = None

    def update(self, now: float, epoch: float, total: int) -> None:
        """Take in the total of this process's trades; `now` is monotonic, `epoch` the time in seconds since 1970."""
        day = datetime.datetime.fromtimestamp(epoch, self._zone).date().isoformat()
        if day != self.day:
            self.day, self.trades = day, 0
        new, self._total = total - self._total, total
        self.trades += new
        if self._at is not None and now > self._at:
            self.rate = new / (now - self._at)
        self._at = now

    def line(self, connection: str) -> str:
        """Return the line."""
        return f"{connection}; {self.rate:,.0f} trades/s; {self.trades:,} trades today"
