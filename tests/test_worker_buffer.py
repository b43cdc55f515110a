"""The record buffer: whatever the pieces are, each record comes out whole, once, and in order."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.stream import framing
from tradebal.stream.framing import MAX_RECORD
from tradebal.worker.buffer import RecordBuffer

FRAMINGS = ("ndjson", "length32")

# Objects by their look; the bytes in between are free, lengths and braces included.
objects = st.binary(max_size=30).map(lambda data: b"{" + data.replace(b"\n", b"") + b"}")


def feed(buffer, data, sizes, most=4096):
    """Give the data, at most `most` bytes at once, as a FIFO does that is written in pieces of these sizes in turn.

    Returns what came out, neighbours joined.
    """
    out = []
    head = written = turn = 0
    while written < len(data):
        written = min(len(data), written + sizes[turn % len(sizes)])
        turn += 1
        seen = 0
        while written - head > seen:
            seen = min(written - head, most)
            more = seen < written - head
            taken = -buffer.kept
            for item in buffer.received(data[head : head + seen], lambda: more):  # noqa: B023
                taken += item if isinstance(item, int) else len(item)
                if out and isinstance(item, bytes) and isinstance(out[-1], bytes):
                    out[-1] += item
                else:
                    out.append(item)
            taken += buffer.kept
            head += taken
            seen -= taken
    return out


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=100, deadline=None)
@given(st.lists(objects, max_size=12), st.binary(max_size=8), sizes)
def test_any_split_of_the_stream_gives_each_record_once(kind, records, tail, sizes):
    frames = [framing.encode(record, kind) for record in records]
    torn = framing.encode(b"{" + tail.replace(b"\n", b"") + b"}", kind)[:-1]
    stream = b"".join(frames)
    buffer = RecordBuffer(kind)
    out = feed(buffer, stream + torn, sizes, 16)
    assert out == ([stream] if stream else [])
    assert buffer.clear() == len(torn)
    assert feed(buffer, stream, sizes, 16) == ([stream] if stream else [])


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=100, deadline=None)
@given(st.lists(objects, min_size=1, max_size=6), st.data())
def test_short_beginning_is_left_where_it_is_until_its_rest_has_come(kind, records, data):
    stream = b"".join(framing.encode(record, kind) for record in records)
    cut = data.draw(st.integers(0, len(stream)))
    buffer = RecordBuffer(kind)
    before = b"".join(feed(buffer, stream[:cut], [cut or 1]))
    assert buffer.kept == 0
    # A successor that begins where this one has left off misses nothing.
    assert before + b"".join(feed(RecordBuffer(kind), stream[len(before) :], [7])) == stream


class Counting(RecordBuffer):
    looked_at = 0

    def received(self, data, more):
        self.looked_at += len(data)
        return super().received(data, more)


@pytest.mark.parametrize("kind", FRAMINGS)
def test_record_that_comes_in_small_pieces_is_not_looked_at_from_its_beginning_each_time(kind):
    frame = framing.encode(b"{" + b"x" * (1 << 18) + b"}", kind)
    buffer = Counting(kind)
    assert feed(buffer, frame, [100], 1 << 16) == [frame]
    assert buffer.looked_at < 2 * len(frame)


# Text as in trades: its bytes, read as a length, can't be one.
texts = st.text(st.sampled_from('abc",:[]0123456789.'), max_size=30).map(lambda text: b"{" + text.encode() + b"}")


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=150, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=8), st.data(), sizes)
def test_stream_that_begins_inside_a_record_loses_that_record_only(kind, first, records, data, sizes):
    torn = framing.encode(first, kind)
    torn = torn[data.draw(st.integers(1, len(torn) - 1)) :]
    stream = b"".join(framing.encode(record, kind) for record in records)
    out = feed(RecordBuffer(kind), torn + stream, sizes, 16)
    assert out in ([len(torn), stream], [torn + stream] if torn == b"\n" else None)


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=4), st.binary(min_size=1, max_size=30), st.lists(texts, min_size=1, max_size=4), sizes)
def test_damage_in_a_length32_stream_costs_nothing_before_it_and_ends_at_a_record(before, noise, after, sizes):
    head = b"".join(framing.encode(record, "length32") for record in before)
    tail = [framing.encode(record, "length32") for record in after]
    # Impossible as a length, so that the damage is one.
    noise = b"\xff\xff\xff\xff" + noise.replace(b"{", b"")
    out = feed(RecordBuffer("length32"), head + noise + b"".join(tail), sizes, 16)
    if head:
        assert out.pop(0) == head
    dropped, *rest = out
    assert dropped + sum(map(len, rest)) == len(noise) + sum(map(len, tail))
    assert rest == [b"".join(tail)]


def test_longest_record_passes():
    for kind in FRAMINGS:
        frame = framing.encode(b"{" + b"x" * (MAX_RECORD - 2) + b"}", kind)
        assert feed(RecordBuffer(kind), frame + frame, [4096]) == [frame + frame]


def test_endless_line_is_dropped_without_being_kept():
    line = b"{" + b"x" * (5 * MAX_RECORD)
    buffer = RecordBuffer("ndjson")
    tracemalloc.start()
    try:
        assert feed(buffer, line, [4096]) == []
        assert tracemalloc.get_traced_memory()[0] < MAX_RECORD
    finally:
        tracemalloc.stop()
    assert feed(buffer, b"\n{}\n", [4096]) == [len(line) + 1, b"{}\n"]


def test_end_of_the_stream_inside_an_endless_line_tells_its_length():
    line = b"{" + b"x" * (2 * MAX_RECORD)
    buffer = RecordBuffer("ndjson")
    feed(buffer, line, [4096])
    assert buffer.clear() == len(line)
