"""Handlers for the real `tradebal worker` that note when trades reached them."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

import arrivals

from tradebal.handlers import Context, Handler
from tradebal.stream.batch import Batch


class Stamp(Handler):
    """Keeps each batch with the time at which it was handed over, and writes all to `log`-SHARD at the end."""

    def __init__(self, context: Context, *, log: str) -> None:
        super().__init__(context)
        self._path = Path(f"{log}-{context.shard}")
        self._kept: list[tuple[int, bytes]] = []

    def on_trades(self, batch: Batch) -> None:
        """Note the time first."""
        self._kept.append((time.monotonic_ns(), batch.raw))

    def close(self) -> None:
        """Write the log."""
        arrivals.write(self._path, self._kept)


class Tally(Handler):
    """Counts, as `tradebal.handlers:Count` does, into a file that others can look at meanwhile: `file`-SHARD.

    It holds the number of trades, and CLOCK_MONOTONIC in nanoseconds after the last of them.
    """

    def __init__(self, context: Context, *, file: str) -> None:
        super().__init__(context)
        path = Path(f"{file}-{context.shard}")
        path.write_bytes(bytes(16))
        with path.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 16)
        self._trades = 0

    def on_trades(self, batch: Batch) -> None:
        """Count them; nothing is decoded."""
        self._trades += len(batch)
        struct.pack_into("=QQ", self._shared, 0, self._trades, time.monotonic_ns())

    def close(self) -> None:
        """Unmap."""
        self._shared.close()
