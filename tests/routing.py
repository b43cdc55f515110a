"""Drives a router without I/O, and keeps everything that comes out of it."""

from dataclasses import dataclass, field

from tradebal.router.interface import Counters, Event, EventKind, Rule, ShardCounters, Status
from tradebal.stream.framing import records

STOCKS = Rule(marker_key=b"ev", marker_values=(b"T",), symbol_key=b"sym")
KRAKEN = Rule(marker_key=b"channel", marker_values=(b"trade",), symbol_key=b"symbol", container=b"data")


@dataclass
class Outcome:
    """What a router made of its input."""

    shards: list[bytes]
    events: list[Event] = field(default_factory=list)
    counters: Counters | None = None
    shard_counters: list[ShardCounters] | None = None

    def of_kind(self, kind):
        return [event for event in self.events if event.kind is kind]

    @property
    def messages(self):
        return [event.data for event in self.of_kind(EventKind.MESSAGE)]

    @property
    def rejects(self):
        return [(event.reason, event.data) for event in self.of_kind(EventKind.REJECT)]

    def trades(self, framing="ndjson"):
        return [list(records(data, framing)) for data in self.shards]


def feed(router, data):
    """Put all of `data` into the router's space, as far as it goes; return how much."""
    space = router.space()
    count = min(len(space), len(data))
    space[:count] = data[:count]
    router.received(count)
    return count


def process_all(router, events=None, shards=None):
    """Process until more input is needed, making room where a shard has none."""
    while (status := router.process()) is not Status.INPUT:
        if status is Status.EVENT:
            event = router.event()
            if events is not None:
                events.append(event)
        elif status is Status.BLOCKED:
            taken = take(router, router.blocked)
            assert taken, "blocked with nothing pending"
            if shards is not None:
                shards[router.blocked] += taken
        else:
            assert status is Status.BUDGET
            assert router.batches(), "out of budget without a batch to take"


def take(router, shard):
    """Take all that is pending for the shard."""
    data = bytes(router.pending(shard))
    router.sent(shard, len(data))
    return data


def drive(router, chunks):
    """Give the router the chunks, one after the other, and return what came out."""
    shards = [b""] * len(router.shard_counters())
    events = []
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[feed(router, rest) :]
            process_all(router, events, shards)
    for shard in range(len(shards)):
        shards[shard] += take(router, shard)
    return Outcome(shards, events, router.counters(), router.shard_counters())
