"""The naive client without shards: websocket-client and orjson, as their examples go; it just counts.

python count_client.py URL FILE      FILE as of bench/handlers.py's Tally
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

import orjson
import websocket
from harness import KEY


def main() -> None:
    url, file = sys.argv[1:]
    Path(file).write_bytes(bytes(16))
    with Path(file).open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), 16)
    connection = websocket.create_connection(url)
    connection.recv()
    connection.send(f'{{"action":"auth","params":"{KEY}"}}')
    connection.recv()
    connection.send('{"action":"subscribe","params":"T.*"}')
    connection.recv()
    trades = 0
    while message := connection.recv():
        for trade in orjson.loads(message):
            if trade["ev"] == "T":
                trades += 1
        struct.pack_into("=QQ", shared, 0, trades, time.monotonic_ns())


main()
