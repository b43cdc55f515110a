"""The least that a reader in Python can do, for latency.py: a FIFO's bytes, and when they came.

python bench/reader.py FIFO LOG           logs each read's time and bytes until SIGTERM, as `relay read` does
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import arrivals

_PIECE = 64 << 10
"""Bytes read at once: a larger buffer would cost more to allocate than what is in it."""


class _Stop(Exception):  # noqa: N818
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


def main() -> int:
    """Wait as any Python program does that has more to wait for than one FIFO."""
    fifo, log = map(Path, sys.argv[1:])
    signal.signal(signal.SIGTERM, _stop)
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    poll = select.epoll()
    poll.register(fd, select.EPOLLIN)
    kept: list[tuple[int, bytes]] = []
    try:
        while True:
            poll.poll(1.0)
            try:
                data = os.read(fd, _PIECE)
            except BlockingIOError:
                continue
            kept.append((time.monotonic_ns(), data))
    except _Stop:
        pass
    arrivals.write(log, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
