"""What the Python clients do with a message: decode it, group its trades by shard, write each group at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import orjson
from block import shard_of


def make_fifos(directory: Path, shards: int, pipe_size: int) -> list[int]:
    """Make the FIFOs, and give their descriptors; a full one blocks its writer."""
    fds = []
    for shard in range(shards):
        path = directory / f"shard-{shard}.fifo"
        os.mkfifo(path)
        fds.append(os.open(path, os.O_RDWR))
        fcntl.fcntl(fds[-1], fcntl.F_SETPIPE_SZ, pipe_size)
    return fds


def make_router(fds: list[int]) -> Callable[[bytes | memoryview], None]:
    """Give a function that routes one message."""
    shards = len(fds)
    shard_by_symbol: dict[str, int] = {}
    loads, dumps, write = orjson.loads, orjson.dumps, os.write
    newline = orjson.OPT_APPEND_NEWLINE

    def route(message: bytes | memoryview) -> None:
        groups: dict[int, list[bytes]] = {}
        for item in loads(message):
            if item["ev"] != "T":
                continue
            symbol = item["sym"]
            shard = shard_by_symbol.get(symbol)
            if shard is None:
                shard = shard_by_symbol[symbol] = shard_of(symbol, shards)
            line = dumps(item, option=newline)
            if shard in groups:
                groups[shard].append(line)
            else:
                groups[shard] = [line]
        for shard, lines in groups.items():
            data = b"".join(lines)
            while data:
                data = data[write(fds[shard], data) :]

    return route
