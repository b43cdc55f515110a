"""What a handler gets: the whole records of one read, raw, as lines, or decoded."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from tradebal.stream import framing, gap
from tradebal.stream.framing import Framing
from tradebal.stream.gap import Gap

# Searched first: in a run of trades it is found out to be absent in half the time that the whole prefix takes.
_GAP_HINT = b"trade"


class Batch:
    """One or more trades of a shard in the order in which the provider sent them, each exactly as it sent it."""

    __slots__ = ("_lines", "framing", "raw", "received_ns", "undecodable")

    def __init__(self, raw: bytes, kind: Framing, received_ns: int) -> None:
        self.raw = raw
        """The records as they stood in the FIFO: whole records, framed."""
        self.framing: Framing = kind
        """How `raw` is framed: `ndjson` or `length32`."""
        self.received_ns = received_ns
        """When the worker read them, CLOCK_REALTIME in nanoseconds."""
        self.undecodable = 0
        """How many records the last call of `trades` skipped."""
        self._lines: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.lines())

    @property
    def receipt(self) -> bytes:
        """What tells this batch from any other: its length in 8 bytes, and its BLAKE2b hash in 16."""
        return len(self.raw).to_bytes(8, "little") + hashlib.blake2b(self.raw, digest_size=16).digest()

    def behind(self, receipt: bytes) -> Batch:
        """Return what follows the batch with that receipt if this one begins with it, else this one."""
        size = int.from_bytes(receipt[:8], "little")
        if Batch(self.raw[:size], self.framing, self.received_ns).receipt != receipt:
            return self
        return Batch(self.raw[size:], self.framing, self.received_ns)

    def lines(self) -> list[bytes]:
        """Return each trade's JSON text, without framing. Don't change the list."""
        if self._lines is None:
            self._lines = framing.records(self.raw, self.framing)
        return self._lines

    def trades(self) -> list[dict[str, Any]]:
        """Return the decoded trades; records that aren't a JSON object are skipped and counted in `undecodable`."""
        lines = self.lines()
        self.undecodable = 0
        try:
            # One call for all is faster than one each. The router hands on balanced objects only, so no record can
            # change what its neighbour means.
            decoded: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
        except orjson.JSONDecodeError:
            return self._trades_one_by_one(lines)
        if len(decoded) != len(lines) or not set(map(type, decoded)) <= {dict}:
            return self._trades_one_by_one(lines)
        return decoded

    def _trades_one_by_one(self, lines: list[bytes]) -> list[dict[str, Any]]:
        trades = []
        for line in lines:
            try:
                trade = orjson.loads(line)
            except orjson.JSONDecodeError:
                trade = None
            if isinstance(trade, dict):
                trades.append(trade)
            else:
                self.undecodable += 1
        return trades


def segments(raw: bytes, kind: Framing, received_ns: int) -> list[tuple[Batch | Gap, int]]:
    """Return the records of one read as batches, with the gaps among them in their places.

    The number tells how many bytes of `raw` are done with when that segment is; nothing is to be done about the rest.
    """
    if _GAP_HINT not in raw or gap.PREFIX not in raw:
        batch = Batch(raw, kind, received_ns)
        # A line that begins so is one, and where the others are is only looked for by who wants to know.
        return [(batch, len(raw))] if raw.startswith(b"{") or batch.lines() else []
    found: list[tuple[Batch | Gap, int]] = []
    trades: list[tuple[bytes, int]] = []
    done = 0
    for record, end in framing.frames(raw, kind):
        if (missing := gap.parse(record)) is None:
            trades.append((record, end))
            continue
        if missing.reason == "restart" and trades and not _whole(trades[-1][0]):
            trades.pop()  # what a balancer that was killed had written of it
        if trades:
            last_end = trades[-1][1]
            trades = []
            found.append((Batch(raw[done:last_end], kind, received_ns), last_end - done))
            done = last_end
        found.append((missing, end - done))
        done = end
    if trades:
        found.append((Batch(raw[done:], kind, received_ns), len(raw) - done))
    return found


def _whole(record: bytes) -> bool:
    try:
        orjson.loads(record)
    except orjson.JSONDecodeError:
        return False
    return True
