"""The log of what arrived, and when: handlers.py, reader.py and relay.c write it, latency.py reads it.

A record for each read: CLOCK_MONOTONIC in nanoseconds, the number of bytes (8 bytes each, this machine's order), the
bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_HEAD = struct.Struct("=QQ")


def write(path: Path, reads: Iterable[tuple[int, bytes]]) -> None:
    """Write them all."""
    with path.open("wb") as out:
        for when, data in reads:
            out.write(_HEAD.pack(when, len(data)) + data)


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give each read's time and bytes."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        when, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size + size
        yield when, data[at - size : at]
