"""The record that stands in a shard's stream where trades are missing, so that a handler knows what it didn't see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, get_args

Reason = Literal["disconnect", "overflow", "restart"]

REASONS: tuple[Reason, ...] = get_args(Reason)

PREFIX = b'{"tradebal":"gap"'
"""What a gap record begins with, and no trade does."""


@dataclass(frozen=True)
class Gap:
    """Trades that are missing at this place of a shard's stream."""

    reason: Reason
    """`disconnect`: there was no upstream connection; `overflow`: the shard's reader was too slow for too long;
    `restart`: a balancer or worker ended in the middle of a record."""
    from_ns: int
    """From when trades are missing, CLOCK_REALTIME in nanoseconds."""
    until_ns: int
    """Until when, likewise."""
    trades: int | None = None
    """How many are missing, where that is known exactly."""

    def to_record(self) -> bytes:
        """Return the record as it stands in the FIFO, without framing."""
        fields = {"reason": self.reason, "from_ns": self.from_ns, "until_ns": self.until_ns, "trades": self.trades}
        return PREFIX + b"," + json.dumps(fields, separators=(",", ":")).encode()[1:]


def parse(record: bytes) -> Gap | None:
    """Return the gap that the record (without framing) announces; None if it is any other record."""
    if not record.startswith(PREFIX):
        return None
    try:
        fields = json.loads(record)
        reason, from_ns, until_ns, trades = (fields[key] for key in ("reason", "from_ns", "until_ns", "trades"))
    except (ValueError, KeyError, RecursionError):
        return None
    if (
        reason not in REASONS
        or type(from_ns) is not int
        or type(until_ns) is not int
        or not (trades is None or type(trades) is int)
    ):
        return None
    return Gap(reason, from_ns, until_ns, trades)
