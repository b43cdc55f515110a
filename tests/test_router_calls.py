"""What the router's calls promise to their caller, without descriptors."""

import time

import pytest

import tradebal.router.pure
from tests.frames import PING, frame, text
from tests.routing import STOCKS, drive, feed, process_all, take
from tradebal.router.interface import BATCH_TRADES, Counters, Event, EventKind, Rule, ShardCounters, Status
from tradebal.stream.framing import MAX_RECORD

TRADE = b'{"ev":"T","sym":"A","p":1}'
FRAMINGS = ("ndjson", "length32")


def trades(count, symbol=b"A"):
    """Return frames with `count` numbered trades, at most 128 in each."""
    objects = [b'{"ev":"T","sym":"%s","q":%d}' % (symbol, number) for number in range(count)]
    return b"".join(text(b"[" + b",".join(objects[at : at + 128]) + b"]") for at in range(0, count, 128))


@pytest.mark.parametrize("shards", [-1, 0, 1025])
def test_a_number_of_shards_out_of_range_is_refused(make, shards):
    with pytest.raises(ValueError, match="shards"):
        make(shards, STOCKS)


@pytest.mark.parametrize("shards", [1, 1024])
def test_the_limits_of_the_number_of_shards_are_in_range(make, shards):
    assert len(make(shards, STOCKS).shard_counters()) == shards


@pytest.mark.parametrize("shard", [-1, 8])
def test_a_pin_to_a_shard_that_is_not_there_is_refused(make, shard):
    with pytest.raises(ValueError, match="pin"):
        make(8, STOCKS, pins={b"A": shard})


def test_an_unknown_framing_is_refused(make):
    with pytest.raises(ValueError, match="framing"):
        make(1, STOCKS, framing="lines")


def test_a_message_limit_of_nothing_is_refused(make):
    with pytest.raises(ValueError, match="max_message"):
        make(1, STOCKS, max_message=0)


@pytest.mark.parametrize("shard", [-1, 2])
def test_a_shard_out_of_range_is_refused(make, shard):
    router = make(2, STOCKS)
    for call in (
        lambda: router.pending(shard),
        lambda: router.torn(shard),
        lambda: router.sent(shard, 0),
        lambda: router.inject(shard, b"x"),
        lambda: router.set_output(shard, -1),
    ):
        with pytest.raises(IndexError):
            call()


def test_more_than_the_space_can_not_have_been_received(make):
    router = make(1, STOCKS)
    size = len(router.space())
    for count in (-1, size + 1):
        with pytest.raises(ValueError, match=r"received|space"):
            router.received(count)
    assert router.counters().reads == 0


def test_more_than_is_pending_can_not_have_been_sent(make):
    router = make(1, STOCKS)
    drive_without_taking(router, text(TRADE))
    for count in (-1, len(TRADE) + 2):
        with pytest.raises(ValueError, match=r"sent|pending"):
            router.sent(0, count)
    assert bytes(router.pending(0)) == TRADE + b"\n"


def drive_without_taking(router, data):
    while data:
        data = data[feed(router, data) :]
        while (status := router.process()) is not Status.INPUT:
            assert status is Status.EVENT, status
            router.event()


def test_a_fresh_router_has_nothing(make):
    router = make(3, STOCKS)
    assert router.process() is Status.INPUT
    assert router.counters() == Counters(*[0] * 10)
    assert router.shard_counters() == [ShardCounters(0, 0)] * 3
    assert router.batches() == router.stalled() == []
    assert [bytes(router.pending(shard)) for shard in range(3)] == [b""] * 3
    assert [router.torn(shard) for shard in range(3)] == [0] * 3
    assert (router.errno, router.blocked) == (0, -1)


def test_what_comes_out_has_the_interfaces_types(make):
    router = make(1, STOCKS)
    feed(router, frame(PING))
    assert router.process() is Status.EVENT
    event = router.event()
    assert type(event) is Event
    assert event.kind is EventKind.PING
    counters = router.counters()
    assert type(counters) is Counters
    assert (counters.reads, counters.bytes, counters.frames, counters.messages) == (1, 2, 1, 0)
    assert [type(each) for each in router.shard_counters()] == [ShardCounters]


def test_an_event_is_handed_out_once(make):
    router = make(1, STOCKS)
    with pytest.raises(RuntimeError):
        router.event()
    feed(router, frame(PING, b"x"))
    assert router.process() is Status.EVENT
    assert router.event() == Event(EventKind.PING, b"x")
    with pytest.raises(RuntimeError):
        router.event()


def test_an_event_that_nobody_takes_is_dropped_by_the_next_call(make):
    for go_on in (lambda router: router.process(), lambda router: router.pump(-1, 0), lambda router: router.reset()):
        router = make(1, STOCKS)
        feed(router, frame(PING, b"x"))
        assert router.process() is Status.EVENT
        go_on(router)
        with pytest.raises(RuntimeError):
            router.event()


def test_an_events_bytes_outlive_the_buffer(make):
    router = make(1, STOCKS)
    feed(router, text(b'{"status":"first"}'))
    router.process()
    event = router.event()
    router.reset()
    drive(router, [text(b'{"status":"other"}') * 1000])
    assert event.data == b'{"status":"first"}'


def test_there_is_always_space_after_input(make):
    router = make(1, STOCKS)
    message = b"x" * (5 << 20)
    stream = memoryview(text(message) + frame(PING))
    while stream:
        assert len(router.space())
        stream = stream[feed(router, stream) :]
        while router.process() is Status.EVENT:
            event = router.event()
            assert event.data in (message, b"")
    assert event.kind is EventKind.PING


def test_space_may_be_asked_for_again_and_again(make):
    router = make(1, STOCKS)
    for _ in range(3):
        first = router.space()
        assert len(router.space()) == len(first)
    outcome = drive(router, [text(TRADE)[:7], b"", text(TRADE)[7:]])
    assert outcome.trades() == [[TRADE]]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_torn_is_the_rest_of_a_record_whose_beginning_was_taken(make, framing):
    head = 4 if framing == "length32" else 0
    tail = 1 if framing == "ndjson" else 0
    record = head + len(TRADE) + tail
    for taken in range(3 * record + 1):
        router = make(1, STOCKS, framing=framing)
        drive_without_taking(router, text(b"[" + b",".join([TRADE] * 3) + b"]"))
        before = bytes(router.pending(0))
        router.sent(0, taken)
        assert bytes(router.pending(0)) == before[taken:]
        assert router.torn(0) == -taken % record


@pytest.mark.parametrize("framing", FRAMINGS)
def test_torn_is_known_byte_by_byte_while_more_is_staged(make, framing):
    router = make(1, STOCKS, framing=framing)
    objects = [b'{"ev":"T","sym":"A","x":"%s"}' % (b"x" * size) for size in (0, 5, 1, 300, 70_000, 2)]
    whole = drive(make(1, STOCKS, framing=framing), [text(b"[" + b",".join(objects) + b"]")]).shards[0]
    ends = []
    for record in objects:
        ends.append((ends[-1] if ends else 0) + len(record) + (4 if framing == "length32" else 1))
    out = b""
    for number, record in enumerate(objects):
        drive_without_taking(router, text(record))
        for step in (1, 3, 6, 20, 1):
            step = min(step, len(router.pending(0)))
            out += bytes(router.pending(0)[:step])
            router.sent(0, step)
            end = min(end for end in [0, *ends] if end >= len(out))
            assert router.torn(0) == end - len(out), (number, step)
    assert out + take(router, 0) == whole
    assert router.torn(0) == 0


def test_sending_nothing_changes_nothing(make):
    router = make(1, STOCKS)
    drive_without_taking(router, text(TRADE))
    router.sent(0, 0)
    assert bytes(router.pending(0)) == TRADE + b"\n"
    assert router.torn(0) == 0


def test_reset_keeps_what_is_staged_and_the_totals(make):
    router = make(1, STOCKS)
    drive_without_taking(router, text(TRADE))
    router.sent(0, 3)
    before = router.counters()
    router.reset()
    assert router.counters() == before
    assert bytes(router.pending(0)) == TRADE[3:] + b"\n"
    assert router.torn(0) == len(TRADE) - 2
    drive_without_taking(router, text(TRADE))
    assert bytes(router.pending(0)) == TRADE[3:] + b"\n" + TRADE + b"\n"


def test_reset_drops_the_rest_of_a_message(make):
    router = make(1, STOCKS)
    feed(router, text(b"[{}," + TRADE + b"]") + text(TRADE))
    assert router.process() is Status.EVENT
    router.reset()
    assert router.process() is Status.INPUT
    assert bytes(router.pending(0)) == b""


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_injected_record_stands_in_its_place_framed_and_uncounted(make, framing):
    router = make(2, STOCKS, framing=framing)
    drive_without_taking(router, text(TRADE))
    shard = next(shard for shard in range(2) if router.pending(shard))
    assert router.inject(shard, b'{"gap":1}')
    drive_without_taking(router, text(TRADE))
    outcome = drive(router, [])
    assert outcome.trades(framing)[shard] == [TRADE, b'{"gap":1}', TRADE]
    assert (outcome.counters.trades, outcome.counters.trade_bytes) == (2, 2 * len(TRADE))
    assert outcome.shard_counters[shard] == ShardCounters(2, 2 * len(TRADE))


def test_injecting_into_a_full_shard_is_refused_until_there_is_room(make):
    router = make(1, STOCKS)
    record = b"x" * MAX_RECORD
    staged = 0
    while router.inject(0, record):
        staged += 1
        assert staged < 100
    assert staged
    assert len(router.pending(0)) == staged * (len(record) + 1)
    take(router, 0)
    assert router.inject(0, record)


def test_an_injected_record_with_a_newline_is_an_error_in_ndjson_and_passes_in_length32(make):
    with pytest.raises(ValueError, match="newline"):
        make(1, STOCKS).inject(0, b"1\n2")
    router = make(1, STOCKS, framing="length32")
    assert router.inject(0, b"1\n2")
    assert bytes(router.pending(0)) == b"\x03\0\0\x001\n2"


def test_an_injected_record_over_the_limit_is_an_error(make):
    with pytest.raises(ValueError, match="record"):
        make(1, STOCKS).inject(0, b"x" * (MAX_RECORD + 1))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_full_shard_blocks_and_nothing_is_lost_or_staged_twice(make, framing):
    router = make(2, STOCKS, framing=framing)
    object_ = b'{"ev":"T","sym":"A","q":%06d,"x":"' + b"x" * 1000 + b'"}'
    objects = [object_ % number for number in range(5000)]
    stream = b"".join(text(b"[" + b",".join(objects[at : at + 50]) + b"]") for at in range(0, 5000, 50))
    out = b""
    blocked = 0
    while stream:
        stream = stream[feed(router, stream) :]
        while (status := router.process()) is not Status.INPUT:
            assert status is Status.BLOCKED
            assert router.process() is Status.BLOCKED
            assert len(router.pending(router.blocked)) >= (64 << 10) + MAX_RECORD - 2000
            assert not router.pending(1 - router.blocked)
            blocked += 1
            out += take(router, router.blocked)
    outcome = drive(router, [])
    whole = max(outcome.shards, key=len)
    expected = drive(make(1, STOCKS, framing=framing), [text(b"[" + b",".join(objects) + b"]")]).shards[0]
    assert out + whole == expected
    assert blocked
    assert outcome.counters.trades == 5000


def test_a_batch_closes_at_each_8192nd_trade(make):
    router = make(4, STOCKS)
    began = time.time_ns()
    stream = trades(3 * BATCH_TRADES - 1)
    drive(router, [stream])
    ended = time.time_ns()
    batches = router.batches()
    assert [batch.connection_trades for batch in batches] == [BATCH_TRADES, 2 * BATCH_TRADES]
    assert [batch.total_trades for batch in batches] == [BATCH_TRADES, 2 * BATCH_TRADES]
    assert [batch.frames for batch in batches] == [BATCH_TRADES // 128] * 2
    assert all(batch.elapsed_ns >= 1 for batch in batches)
    assert began <= batches[0].time_ns <= batches[1].time_ns <= ended
    assert router.batches() == []
    drive(router, [text(TRADE)])
    last = router.batches()
    assert [batch.total_trades for batch in last] == [3 * BATCH_TRADES]
    together = batches + last
    assert sum(batch.reads for batch in together) == router.counters().reads
    assert sum(batch.bytes for batch in together) == router.counters().bytes
    assert last[0].total_bytes == router.counters().bytes


def test_a_batch_from_what_was_already_buffered_has_no_reads_and_no_bytes(make):
    router = make(1, STOCKS)
    stream = text(b"[" + b",".join([TRADE] * (2 * BATCH_TRADES)) + b"]")
    while stream:
        stream = stream[feed(router, stream) :]
        process_all(router)
    first, second = router.batches()
    assert first.reads
    assert first.bytes
    assert first.frames == 1
    assert (second.reads, second.bytes, second.frames) == (0, 0, 0)
    assert second.total_bytes == first.total_bytes


def test_a_new_connection_begins_a_new_batch(make):
    router = make(1, STOCKS)
    drive(router, [trades(BATCH_TRADES - 1)])
    router.reset()
    drive(router, [trades(BATCH_TRADES - 1)])
    assert router.batches() == []
    before = router.counters()
    drive(router, [text(TRADE)])
    (batch,) = router.batches()
    assert (batch.connection_trades, batch.total_trades) == (BATCH_TRADES, 2 * BATCH_TRADES - 1)
    assert batch.frames == BATCH_TRADES // 128 + 1
    assert batch.total_bytes == before.bytes + len(text(TRADE))


def test_the_router_stops_before_a_batch_would_be_lost(make, monkeypatch):
    kept = 1024
    if make(1, STOCKS).kind == "python":
        kept = 3  # 8.4 million trades would take the Python router a minute
        monkeypatch.setattr(tradebal.router.pure, "BATCHES_KEPT", kept)
    router = make(1, Rule(b"e", (b"T",), b"s"))
    objects = b",".join([b'{"e":"T","s":"A"}'] * BATCH_TRADES)
    message = text(b"[" + objects + b"]")
    for _ in range(kept):
        rest = message
        while rest:
            rest = rest[feed(router, rest) :]
            assert router.process() is Status.INPUT
        take(router, 0)
    rest = message + text(TRADE)
    while rest:
        rest = rest[feed(router, rest) :]
        if router.process() is Status.BUDGET:
            break
    assert router.process() is Status.BUDGET
    assert router.pump(-1, 10**9) is Status.BUDGET
    assert router.counters().trades == (kept + 1) * BATCH_TRADES - 1
    batches = router.batches()
    assert [batch.connection_trades for batch in batches] == [BATCH_TRADES * n for n in range(1, kept + 1)]
    assert router.process() is not Status.BUDGET
    assert router.batches()[0].connection_trades == (kept + 1) * BATCH_TRADES
