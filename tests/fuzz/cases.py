"""Reads a fuzzer's input as a router's options and a connection's bytes, as case.c does, and notes what comes out.

An input begins with three bytes; what follows is its payload.

- byte 0, chunking: 0: all at once; 1 to 15: chunks of so many bytes; 16 to 199: chunks of random sizes; from 200 on
  also calls between the chunks (`CALLS`).
- byte 1, router: bits 0-2 the rule; bit 3 length32 framing; bit 4 pins; bits 5-6 max_message; bits 5-7 are 4: shapes
  that take long are as large as they get.
- byte 2, shape: bits 0-2 what is made of the payload (`_messages`); bits 3-5 number of shards; bits 6-7 an amount,
  whose meaning depends on the shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from tests import frames as server
from tests.routing import KRAKEN, STOCKS, feed, take
from tradebal.router.interface import Rule, Status
from tradebal.stream.framing import MAX_RECORD

HEADER = 3
CALLS = 200

RULES = (
    None,
    STOCKS,
    KRAKEN,
    Rule(b"type", (b"match", b"last_match"), b"product_id", notice_values=(b"error", "é".encode())),
    Rule(b"ev", (b"T", b"Q"), b"ev"),
    Rule(b'k"e\\y', (b"\n", "é😀".encode()), "s\té".encode()),
    Rule(b"ev", (b"T",), b"sym", container=b"sym", notice_values=()),
    Rule(b"", (b"", b"T" * 33), b"s"),
)
SHARDS = (4, 1, 2, 3, 7, 8, 20, 100)
MAX_MESSAGES = ((4 << 20) - 256, 60, 300, 70_000)

_MOST_CHUNKS = 1024
_CHUNK_LIMITS = (4, 60, 1000, 70_000)
_REPEATED_SIZES = ((1000, 4000, 10_000, 70_000), (40_000, 70_000, 140_000, 360_000))
_MOST_REPEATED = ((100, 200, 400, 800), (1000, 2000, 3000, 17_000))
_EDGES = (64, 192, 32 << 10, 64 << 10)
_LONG_RECORDS = (((3, 300), (2, 5000), (1, 70_000)), ((2, 600_000), (1, MAX_RECORD), (1, MAX_RECORD + 1)))


class RandomNumbers:
    """A linear congruential generator, since C and Python must draw the same."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, limit: int) -> int:
        self._state = (self._state * 1664525 + 1013904223) % 2**32
        return (self._state >> 8) % limit


class Case(NamedTuple):
    """What an input says: a router's arguments, and one stream of bytes for each connection."""

    shards: int
    rule: Rule | None
    options: dict
    connections: list[bytes]
    chunking: int
    seed: int

    @property
    def calls(self) -> bool:
        """Whether calls stand between the chunks, so that the result depends on the chunking."""
        return self.chunking >= CALLS


def read(data: bytes) -> Case | None:
    """Return what an input says; None if it is too short."""
    if len(data) < HEADER:
        return None
    chunking, router, shape = data[:HEADER]
    shards = SHARDS[shape >> 3 & 7]
    rule = RULES[router & 7]
    pins = {b"A": 0, b"BRK.B": shards - 1, "é".encode(): 0, b"LONGSYMBOL": shards // 2}
    options = {
        "framing": "length32" if router & 8 else "ndjson",
        "pins": pins if router & 16 else {},
        "max_message": MAX_MESSAGES[router >> 5 & 3],
    }
    seed = chunking << 8 | shape
    large = router >> 5 == 4
    connections = _connections(data[HEADER:], shape & 7, shape >> 6, large, rule or STOCKS, RandomNumbers(seed))
    return Case(shards, rule, options, connections, chunking, seed)


def _connections(
    payload: bytes, shape: int, amount: int, large: bool, rule: Rule, random: RandomNumbers
) -> list[bytes]:
    match shape:
        case 0:
            return [payload]
        case 1:
            return [server.frame(server.TEXT, payload)]
        case 2:
            return [server.frame(server.BINARY, payload)]
        case 3:
            return [_fragmented(payload, amount, random)]
        case 4:
            count = min(_REPEATED_SIZES[large][amount] // (len(payload) + 1) + 1, _MOST_REPEATED[large][amount])
            if amount == 2:
                return [server.frame(server.TEXT, b"[" + payload + b"]") * count]
            return [server.frame(server.TEXT, b"[" + b",".join([payload] * count) + b"]")]
        case 5:
            return [server.frame(server.TEXT, _at_edge(payload, _EDGES[amount], rule))]
        case 6:
            return [server.frame(server.BINARY, _nested(payload, 1 + 2 * amount))]
    if not amount:
        middle = len(payload) // 2
        return [payload[:middle], payload[middle:]]
    count, size = _LONG_RECORDS[large][amount - 1]
    return [server.frame(server.TEXT, b"[" + _long(payload, size, rule) + b"]") * count]


def _fragmented(payload: bytes, amount: int, random: RandomNumbers) -> bytes:
    """Return a message in up to 8 fragments; bit 0 of the amount: binary, bit 1: with a ping behind each."""
    opcode = server.BINARY if amount & 1 else server.TEXT
    ping = server.frame(server.PING, b"ping") if amount & 2 else b""
    cuts = [random.below(len(payload) + 1) for _ in range(random.below(8))]
    return b"".join(fragment + ping for fragment in server.fragments(payload, cuts, opcode))


def _spelled(text: bytes) -> bytes:
    """Return a JSON string with its quotes."""
    return b'"%s"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")


def _marker(rule: Rule) -> bytes:
    return _spelled(rule.marker_key) + b":" + _spelled(rule.marker_values[0])


def trade(rule: Rule, pad: int) -> bytes:
    """Return a usual trade (what stands in the envelope's array, with a container) that is padded by `pad` bytes."""
    begin = b"" if rule.container else _marker(rule) + b","
    return b'{%s%s:"A","pad":"%s"}' % (begin, _spelled(rule.symbol_key), b"x" * pad)


def opening(rule: Rule) -> bytes:
    """Return what stands before the first trade of a usual message."""
    return b"{%s,%s:[" % (_marker(rule), _spelled(rule.container)) if rule.container else b"["


def _at_edge(payload: bytes, edge: int, rule: Rule) -> bytes:
    """Return a message whose first trades end so that `edge` falls into the payload's middle."""
    data = opening(rule)
    room = edge - len(payload) // 2 - len(data)
    usual = trade(rule, 60) + b","
    data += usual * max(0, room // len(usual) - 1)
    last = trade(rule, 0) + b","
    room = edge - len(payload) // 2 - len(data)
    return data + (trade(rule, room - len(last)) + b"," if room >= len(last) else b" " * max(0, room)) + payload


def _nested(payload: bytes, size: int) -> bytes:
    """Return about 1024 times the payload's first `size` bytes, its middle, and as often its last byte."""
    count = 1020 + (payload[size] if len(payload) > size else 0) % 8
    rest = payload[size + 1 :]
    return payload[:size] * count + rest[:-1] + rest[-1:] * count


def _long(payload: bytes, size: int, rule: Rule) -> bytes:
    """Return an object of so many bytes that ends with the payload as further members."""
    whole = trade(rule, 0)[:-1] + b"," + payload + b"}"
    return trade(rule, max(0, size - len(whole)))[:-1] + b"," + payload + b"}"


def chunks(stream: bytes, chunking: int, random: RandomNumbers) -> Iterator[bytes]:
    """Cut a connection's bytes; no more than a few thousand times, however long they are."""
    least = len(stream) // _MOST_CHUNKS + 1
    start = 0
    while start < len(stream):
        if not chunking:
            size = len(stream)
        elif chunking < 16:
            size = chunking
        else:
            size = 1 + random.below(_CHUNK_LIMITS[chunking & 3])
        size = max(size, least)
        yield stream[start : start + size]
        start += size


class Drive:
    """Gives a router a case, and keeps what comes out of it."""

    def __init__(self, make, case: Case, *, chunking: int | None = None) -> None:
        self.case = case
        self.chunking = case.chunking if chunking is None else chunking
        self.router = make(case.shards, case.rule, **case.options)
        self.shards = [b""] * case.shards
        self.lines: list[bytes] = []
        self.batches: list[bytes] = []
        self.pumping = False

    def result(self) -> bytes:
        """Return all that came out in one canonical text, which the C harness writes too."""
        random = RandomNumbers(self.case.seed)
        for number, stream in enumerate(self.case.connections):
            if number:
                self.router.reset()
            for chunk in chunks(stream, self.chunking, random):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[feed(self.router, rest) :]
                    self.process()
                if self.case.calls:
                    self.call(random)
        return b"".join([*self.lines, *self.batches, *self.totals()])

    def process(self) -> None:
        """Process what was received, and keep its events."""
        router = self.router
        while (status := router.pump(-1, 0) if self.pumping else router.process()) is not Status.INPUT:
            if status is Status.EVENT:
                totals = router.counters()
                event = router.event()
                place = b"after %d trades %d frames %d messages" % (totals.trades, totals.frames, totals.messages)
                head = b"event %d code %d %s, %s, %d bytes:\n" % (
                    event.kind,
                    event.code,
                    event.reason.encode(),
                    place,
                    len(event.data),
                )
                self.lines += [head, event.data, b"\n"]
            elif status is Status.BLOCKED:
                self.shards[router.blocked] += take(router, router.blocked)
            else:
                raise AssertionError(f"{status!r} has no reason here")
        for batch in router.batches():
            self.batches.append(
                b"batch of %d frames at trade %d, %d\n" % (batch.frames, batch.connection_trades, batch.total_trades)
            )

    def call(self, random: RandomNumbers) -> None:
        """Make a call that may stand between two chunks."""
        router = self.router
        what, shard = random.below(8), random.below(self.case.shards)
        if what == 0:
            pending = router.pending(shard)
            count = random.below(len(pending) + 1)
            self.shards[shard] += bytes(pending[:count])
            router.sent(shard, count)
            line = b"torn %d of %d\n" % (router.torn(shard), len(router.pending(shard)))
        elif what == 1:
            line = b"injected %d\n" % router.inject(shard, b'{"gap":%d}' % random.below(1 << 20))
        elif what == 2:
            self.pumping = not self.pumping
            line = b""
        elif what == 3 and not random.below(4):
            router.reset()
            line = b"reset\n"
        else:
            line = b""
        self.lines.append(line)

    def totals(self) -> Iterator[bytes]:
        """Yield the counters, save those that depend on how often bytes were received, and each shard's bytes."""
        router = self.router
        totals = router.counters()
        yield b"%d bytes %d frames %d messages %d trades of %d bytes %d rejects %d skipped:\n%s\n" % (
            totals.bytes,
            totals.frames,
            totals.messages,
            totals.trades,
            totals.trade_bytes,
            totals.rejects,
            totals.skipped,
            router.skipped_sample(),
        )
        for shard, counters in enumerate(router.shard_counters()):
            data = self.shards[shard] + take(router, shard)
            yield b"shard %d: %d trades of %d bytes, in %d bytes:\n" % (shard, *counters, len(data))
            yield data
            yield b"\n"


def difference(one: bytes, other: bytes) -> str:
    """Return the first place where two results differ."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, at - 200)
    return f"at byte {at}:\n  {one[begin : at + 200]!r}\n  {other[begin : at + 200]!r}"


def agree(makers, data: bytes) -> bytes | None:
    """Return what the routers make of an input; AssertionError if they differ, or if the chunking changes it."""
    case = read(data)
    if case is None:
        return None
    results = [Drive(make, case).result() for make in makers]
    if case.chunking and not case.calls:
        results.append(Drive(makers[0], case, chunking=0).result())
    for one, other in itertools.pairwise(results):
        assert one == other, difference(one, other)
    return results[0]
