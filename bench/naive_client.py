"""The client that most would write first: websocket-client, orjson, os.write.

python naive_client.py URL DIRECTORY SHARDS PIPE_SIZE plain|tuned

plain: as the packages' own examples go: recv() a message, loads() it, one write() a trade. tuned: what can be made of
it by someone who has measured: the package's UTF-8 check off (orjson refuses invalid UTF-8 anyway), one write() a shard
and message.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson
import websocket
from block import shard_of
from harness import KEY
from sharding import make_fifos, make_router


def main() -> None:
    url, directory, shards, pipe_size, way = sys.argv[1:]
    fifos = make_fifos(Path(directory), int(shards), int(pipe_size))
    connection = websocket.create_connection(url, skip_utf8_validation=way == "tuned")
    connection.recv()
    connection.send(f'{{"action":"auth","params":"{KEY}"}}')
    connection.recv()
    connection.send('{"action":"subscribe","params":"T.*"}')
    connection.recv()
    if way == "tuned":
        route = make_router(fifos)
        while True:
            opcode, data = connection.recv_data()
            if opcode != websocket.ABNF.OPCODE_TEXT:
                return
            route(data)
    shard_by_symbol: dict[str, int] = {}
    while message := connection.recv():
        for trade in orjson.loads(message):
            if trade["ev"] != "T":
                continue
            symbol = trade["sym"]
            if symbol not in shard_by_symbol:
                shard_by_symbol[symbol] = shard_of(symbol, len(fifos))
            os.write(fifos[shard_by_symbol[symbol]], orjson.dumps(trade) + b"\n")


main()
