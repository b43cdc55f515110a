"""The C core's pump under load: many shards, small pipes, sends of every size, and nothing lost or out of order."""

import contextlib
import fcntl
import os
import random
import re
import select
import socket
import threading

import pytest

from tests.frames import PING, fragments, frame
from tests.routing import STOCKS
from tradebal.router.interface import EventKind, Status
from tradebal.router.symbols import shard_of
from tradebal.stream.framing import records

native = pytest.importorskip("tradebal.router.native", reason="the C core isn't built")

SYMBOLS = [b"A", b"MSFT", b"BRK.A", b"GOOGL", b"BTC-USD", b"O:SPY251219C00650000", "Ä".encode(), b"SPY"]


def make_stream(rng, trades):
    """Return frames that hold `trades` numbered trades in messages of many sizes, each before a ping; and how many."""
    parts = []
    number = messages = 0
    while number < trades:
        count = min(trades - number, rng.choice((1, 3, 15, 128, 3000)))
        objects = [
            b'{"ev":"T","sym":"%s","n":%d%s}'
            % (rng.choice(SYMBOLS), number + i, rng.choice((b"", b',"c":[0,12]', b',"y":{"z":[1]}', b',"q":"}{"')))
            for i in range(count)
        ]
        message = b"[" + b",".join(objects) + b"]"
        cuts = sorted(rng.randrange(len(message)) for _ in range(rng.choice((0, 0, 2))))
        messages += 1
        parts += [*fragments(message, cuts), frame(PING, b"%d" % number)]
        number += count
    return b"".join(parts), messages


@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_every_trade_of_a_flood_arrives_once_and_in_order_though_pipes_are_full(framing):
    rng = random.Random(7)
    shards, trades = 4, 60_000
    stream, messages = make_stream(rng, trades)
    router = native.Router(shards, STOCKS, framing=framing)
    got = [bytearray() for _ in range(shards)]
    pings = 0
    with contextlib.ExitStack() as stack:
        theirs, ours = (stack.enter_context(end) for end in socket.socketpair())
        ours.setblocking(False)
        pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(shards)]
        for shard, (read_end, write_end) in enumerate(pipes):
            stack.callback(os.close, read_end)
            stack.callback(os.close, write_end)
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096 << shard)
            router.set_output(shard, write_end)

        def send():
            at = 0
            while at < len(stream):
                size = rng.choice((1, 100, 5000, 1 << 20))
                theirs.sendall(stream[at : at + size])
                at += size
            theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        status = Status.INPUT
        while status is not Status.CLOSED:
            status = router.pump(ours.fileno(), 10**6)
            if status is Status.EVENT:
                event = router.event()
                assert event.kind is EventKind.PING
                pings += 1
            router.batches()
            for shard in router.stalled():
                # Somewhere else for what the pipe doesn't take now, as the balancer's overflow does.
                got[shard] += drain(pipes[shard][0]) + bytes(router.pending(shard))
                router.sent(shard, len(router.pending(shard)))
                router.set_output(shard, pipes[shard][1])
            for shard in range(shards):
                got[shard] += drain(pipes[shard][0])
            if status is Status.INPUT:
                select.select([ours], [], [], 30)
        sender.join()
    routed = [list(records(bytes(data), framing)) for data in got]
    numbers = [[int(re.search(rb'"n":(\d+)', record)[1]) for record in shard] for shard in routed]
    assert all(numbers[shard] == sorted(numbers[shard]) for shard in range(shards))
    assert sorted(n for shard in numbers for n in shard) == list(range(trades))
    for shard, found in enumerate(routed):
        symbols = {record.split(b'"sym":"')[1].split(b'"')[0] for record in found}
        assert all(shard_of(symbol, shards) == shard for symbol in symbols)
    assert pings == messages
    counters = router.counters()
    assert counters.trades == trades
    assert counters.bytes == len(stream)
    assert counters.written <= sum(map(len, got))


def drain(fd):
    data = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 20):
            data += part
    return data
