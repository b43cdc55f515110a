"""The queue behind a full FIFO: in order, bounded, whole records, and exact about what it dropped."""

import contextlib
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.balancer.overflow import Overflow
from tradebal.stream import framing, gap


@pytest.fixture
def pipe():
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield read, write
    os.close(read)
    os.close(write)


def read_all(fd):
    pieces = []
    while True:
        try:
            piece = os.read(fd, 1 << 20)
        except BlockingIOError:
            return b"".join(pieces)
        pieces.append(piece)


def pour(overflow, read, write):
    """Drain through the pipe until nothing waits."""
    received = bytearray()
    while True:
        done = overflow.drain(write)
        received += read_all(read)
        if done:
            return bytes(received)


def numbered(first, count):
    return [b'{"n":%d,"pad":"%s"}' % (number, b"x" * (number % 50)) for number in range(first, first + count)]


@pytest.mark.parametrize("record_framing", ["ndjson", "length32"])
def test_what_waits_comes_out_whole_and_in_order_however_often_the_fifo_fills(pipe, record_framing):
    overflow = Overflow(1 << 30, record_framing, announce=True)
    records = numbered(0, 20_000)  # more than the pipe holds at once
    for start in range(0, len(records), 700):
        data = b"".join(framing.encode(record, record_framing) for record in records[start : start + 700])
        assert overflow.put(memoryview(data), 0, drop=True) == 0
    assert framing.records(pour(overflow, *pipe), record_framing) == records
    assert overflow.size == 0
    assert overflow.dropped == 0


def used():
    """Bytes of memory that this process's overflow files take."""
    held = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            if "tradebal-overflow" in str(fd.readlink()):
                held += os.fstat(int(fd.name)).st_blocks * 512
    return held


def test_memory_is_given_back_while_it_drains(pipe):
    read, write = pipe
    overflow = Overflow(1 << 30, "ndjson", announce=False)
    data = b"x" * 99 + b"\n"
    overflow.put(memoryview(data * 400_000), 0, drop=True)
    highest = used()
    assert highest >= 40_000_000
    received = bytearray()
    while len(received) < 20_000_000:
        assert not overflow.drain(write)
        received += read_all(read)
    assert used() < highest - 16_000_000
    received += pour(overflow, read, write)
    assert bytes(received) == data * 400_000
    assert used() == 0


def test_a_full_fifo_needs_no_descriptor_that_may_not_be_granted(pipe):
    overflow = Overflow(1 << 30, "ndjson", announce=False)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert overflow.put(memoryview(b"x" * 99 + b"\n"), 0, drop=True) == 0
        assert overflow.put(memoryview((b"x" * 99 + b"\n") * 400_000), 0, drop=True) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(pour(overflow, *pipe)) == 40_000_100


def test_memory_that_is_not_granted_is_a_limit_counted_and_announced(pipe):
    overflow = Overflow(1 << 30, "ndjson", announce=True)
    records = numbered(0, 1000)
    encoded = [framing.encode(record, "ndjson") for record in records]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    end = b'"end"}\n'
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(b"".join(encoded[:500])) + len(end) + 10, before[1]))
    try:
        assert overflow.put(memoryview(b"".join(encoded[:500])), 0, drop=True) == 0
        assert overflow.put(memoryview(end + b"".join(encoded[500:700])), len(end), drop=True) == 200
        assert overflow.put(memoryview(b"".join(encoded[700:])), 0, drop=True) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert overflow.dropped == 500
    lines = pour(overflow, *pipe).splitlines()
    assert lines[:500] == records[:500]
    assert lines[500] == end.rstrip()
    assert gap.parse(lines[501]).trades == 500
    assert len(lines) == 502


def test_what_a_killed_process_left_is_read_on_by_another(pipe):
    read, write = pipe
    first = Overflow(1 << 30, "ndjson", announce=False)
    data = b"".join(framing.encode(record, "ndjson") for record in numbered(0, 20_000))
    first.put(memoryview(data), 0, drop=True)
    assert not first.drain(write)
    received = read_all(read)
    fd = first._files[0].fd
    second = Overflow(1 << 30, "ndjson", announce=False, left={1: os.dup(fd)})
    assert second.size == len(data) - len(received)
    assert received + pour(second, read, write) == data
    third = Overflow(1 << 30, "ndjson", announce=False, left={1: os.dup(fd)})
    assert third.size == 0


@pytest.mark.parametrize("record_framing", ["ndjson", "length32"])
def test_beyond_the_limit_the_newest_whole_records_are_dropped_counted_and_announced_in_their_place(
    pipe, record_framing
):
    records = numbered(0, 100)
    encoded = [framing.encode(record, record_framing) for record in records]
    overflow = Overflow(len(b"".join(encoded[:60])) + 5, record_framing, announce=True)
    assert overflow.put(memoryview(b"".join(encoded[:50])), 0, drop=True) == 0
    assert overflow.put(memoryview(b"".join(encoded[50:80])), 0, drop=True) == 20
    assert overflow.put(memoryview(b"".join(encoded[80:90])), 0, drop=True) == 10
    assert overflow.dropped == 30
    first = framing.records(pour(overflow, *pipe), record_framing)
    assert first[:60] == records[:60]
    assert gap.parse(first[60]).trades == 30
    assert gap.parse(first[60]).reason == "overflow"
    assert len(first) == 61
    assert overflow.put(memoryview(b"".join(encoded[90:])), 0, drop=True) == 0
    assert framing.records(pour(overflow, *pipe), record_framing) == records[90:]


def test_the_end_of_a_record_that_the_fifo_has_the_beginning_of_is_kept_even_beyond_the_limit(pipe):
    overflow = Overflow(0, "ndjson", announce=False)
    assert overflow.put(memoryview(b'"end"}\n{"a":1}\n{"a":2}\n'), 7, drop=True) == 2
    assert pour(overflow, *pipe) == b'"end"}\n'


def test_without_dropping_all_is_kept_and_full_says_when_to_pause(pipe):
    overflow = Overflow(10, "ndjson", announce=True)
    assert not overflow.full
    assert overflow.put(memoryview(b'{"a":1}\n{"a":2}\n'), 0, drop=False) == 0
    assert overflow.full
    assert pour(overflow, *pipe) == b'{"a":1}\n{"a":2}\n'
    assert not overflow.full


def test_what_is_given_up_at_the_end_is_counted(pipe):
    overflow = Overflow(100, "ndjson", announce=True)
    overflow.put(memoryview(b'{"a":1}\n'), 0, drop=True)
    assert overflow.close() == 8
    assert overflow.close() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["ndjson", "length32"]),
    st.integers(0, 3000),
    st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=30),
)
def test_handed_on_plus_dropped_is_what_was_put_for_any_course_of_events(record_framing, limit, steps):
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        overflow = Overflow(limit, record_framing, announce=True)
        put, received = [], b""
        for step in steps:
            if step is None:
                received += pour(overflow, read, write)
            else:
                records = numbered(len(put), step)
                put.extend(records)
                overflow.put(
                    memoryview(b"".join(framing.encode(record, record_framing) for record in records)), 0, drop=True
                )
        received += pour(overflow, read, write)
        expected = iter(put)
        lost = 0
        for record in framing.records(received, record_framing):
            if announced := gap.parse(record):
                lost += announced.trades
                for _ in range(announced.trades):
                    next(expected)
            else:
                assert record == next(expected)
        assert lost == overflow.dropped
        assert next(expected, None) is None
    finally:
        os.close(read)
        os.close(write)
