"""Writes down when each block of trades was due, so that latency can be measured in another process."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

from tradebal.market.playback import Block


class SentLog:
    """A CSV file with a line for each block: client, first sequence number, trades, CLOCK_MONOTONIC in nanoseconds.

    The time is taken when the block was rendered, before it waited for the socket, so a latency measured against it
    holds everything that a client was late. Linux has one CLOCK_MONOTONIC for all processes.
    """

    def __init__(self, path: Path) -> None:
        """Create or truncate `path`; OSError as by open()."""
        self._file = path.open("w", encoding="ascii", newline="")
        self._lock = threading.Lock()
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(("client", "first", "trades", "monotonic_ns"))

    def add(self, client: int, block: Block, monotonic_ns: int) -> None:
        """Note one block."""
        with self._lock:
            self._writer.writerow((client, block.first, block.trades, monotonic_ns))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._file.close()
