"""The record buffer: whatever the pieces are, each record comes out whole, once, and in order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal import framing
from tradebal.router.interface import MAX_RECORD
from tradebal.worker.buffer import RecordBuffer

FRAMINGS = ("ndjson", "length32")

# Objects by their look; the bytes in between are free, lengths and braces included.
objects = st.binary(max_size=30).map(lambda data: b"{" + data.replace(b"\n", b"") + b"}")


def feed(buffer, data, sizes):
    """Give the data in pieces of these sizes, over and over; returns what came out, neighbours joined."""
    out = []
    position = 0
    turn = 0
    while position < len(data):
        space = buffer.space()
        piece = data[position : position + min(sizes[turn % len(sizes)], len(space))]
        space[: len(piece)] = piece
        for item in buffer.received(len(piece)):
            if out and isinstance(item, bytes) and isinstance(out[-1], bytes):
                out[-1] += item
            else:
                out.append(item)
        position += len(piece)
        turn += 1
    return out


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=100, deadline=None)
@given(st.lists(objects, max_size=12), st.binary(max_size=8), sizes)
def test_any_split_of_the_stream_gives_each_record_once(kind, records, tail, sizes):
    frames = [framing.encode(record, kind) for record in records]
    torn = framing.encode(b"{" + tail.replace(b"\n", b"") + b"}", kind)[:-1]
    stream = b"".join(frames)
    buffer = RecordBuffer(kind, 16)
    out = feed(buffer, stream + torn, sizes)
    assert out == ([stream] if stream else [])
    assert buffer.held == len(torn)
    assert buffer.clear() == len(torn)
    assert feed(buffer, stream, sizes) == ([stream] if stream else [])


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=100, deadline=None)
@given(st.lists(objects, min_size=1, max_size=6), st.data())
def test_reading_what_is_missing_ends_at_the_records_end(kind, records, data):
    frames = [framing.encode(record, kind) for record in records]
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))
    buffer = RecordBuffer(kind, 16)
    out = feed(buffer, stream[:cut], [7])
    position = cut
    while buffer.held:
        count = min(buffer.missing, len(buffer.space()))
        out += feed(buffer, stream[position : position + count], [count])
        position += count
    ends = [0]
    for frame in frames:
        ends.append(ends[-1] + len(frame))
    assert position == min(end for end in ends if end >= cut)
    assert b"".join(out) == stream[:position]


# Text as in trades: its bytes, read as a length, can't be one.
texts = st.text(st.sampled_from('abc",:[]0123456789.'), max_size=30).map(lambda text: b"{" + text.encode() + b"}")


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=150, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=8), st.data(), sizes)
def test_stream_that_begins_inside_a_record_loses_that_record_only(kind, first, records, data, sizes):
    torn = framing.encode(first, kind)
    torn = torn[data.draw(st.integers(1, len(torn) - 1)) :]
    stream = b"".join(framing.encode(record, kind) for record in records)
    out = feed(RecordBuffer(kind, 16), torn + stream, sizes)
    assert out in ([len(torn), stream], [torn + stream] if torn == b"\n" else None)


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=4), st.binary(min_size=1, max_size=30), st.lists(texts, min_size=1, max_size=4), sizes)
def test_damage_in_a_length32_stream_costs_nothing_before_it_and_ends_at_a_record(before, noise, after, sizes):
    head = b"".join(framing.encode(record, "length32") for record in before)
    tail = [framing.encode(record, "length32") for record in after]
    # Impossible as a length, so that the damage is one.
    noise = b"\xff\xff\xff\xff" + noise.replace(b"{", b"")
    out = feed(RecordBuffer("length32", 16), head + noise + b"".join(tail), sizes)
    if head:
        assert out.pop(0) == head
    dropped, *rest = out
    assert dropped + sum(map(len, rest)) == len(noise) + sum(map(len, tail))
    assert rest == [b"".join(tail)]


def test_longest_record_passes():
    for kind in FRAMINGS:
        frame = framing.encode(b"{" + b"x" * (MAX_RECORD - 2) + b"}", kind)
        assert feed(RecordBuffer(kind, 4096), frame + frame, [4096]) == [frame + frame]


def test_endless_line_is_dropped_without_being_kept():
    line = b"{" + b"x" * (5 * MAX_RECORD)
    buffer = RecordBuffer("ndjson", 4096)
    assert feed(buffer, line, [4096]) == []
    assert buffer.held < MAX_RECORD + 4096
    assert feed(buffer, b"\n{}\n", [4096]) == [len(line) + 1, b"{}\n"]


def test_end_of_the_stream_inside_an_endless_line_tells_its_length():
    line = b"{" + b"x" * (2 * MAX_RECORD)
    buffer = RecordBuffer("ndjson", 4096)
    feed(buffer, line, [4096])
    assert buffer.clear() == len(line)
