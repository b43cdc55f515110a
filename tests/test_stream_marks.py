"""Marks in a shard's stream: what they say of a trade's latency is right, or nothing."""

import contextlib
import os
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.stream.marks import MarkReader, MarkWriter

SIZE = 10
"""Bytes of each record."""
SIZE_OF_FILE = 16432


@dataclass
class Record:
    received: int
    handled: int = 0
    reader: MarkReader | None = None


class Stream:
    """A FIFO with a balancer at one end and a worker at the other; time is a counter."""

    def __init__(self, directory):
        self.path = directory / "marks" / "shard-0"
        self.fifo, self.pen = os.pipe2(os.O_NONBLOCK)
        self.now = 0
        self.records = []
        self.taken = 0
        self.queued = 0  # records that wait behind the FIFO
        self.marked = []
        self.expected = []
        self.told = []
        self.writer = MarkWriter(self.path)
        self.reader = MarkReader(self.path)
        self.attach()

    def attach(self):
        self.reader.attach(os.fstat(self.fifo).st_ino)

    def write(self, count):
        self.drain()
        os.write(self.pen, bytes(SIZE * count))
        self.records += [Record(self.now) for _ in range(count)]

    def queue(self, count):
        self.queued += count
        self.records += [Record(self.now) for _ in range(count)]

    def drain(self):
        os.write(self.pen, bytes(SIZE * self.queued))
        self.queued = 0

    def mark(self, back):
        if back < len(self.records):
            record = self.records[-1 - back]
            behind = SIZE * (back + 1 - self.queued)
            self.writer.mark(self.fifo, behind=behind, edits=0, time_ns=record.received)
            self.marked.append(record)

    def take(self, count):
        ours = self.records[self.taken : min(self.taken + count, len(self.records) - self.queued)]
        if not ours:
            return
        self.reader.taking()
        os.read(self.fifo, SIZE * len(ours))
        self.reader.took(SIZE * len(ours))
        self.taken += len(ours)
        for record in ours:
            record.handled, record.reader = self.now, self.reader
        self.reader.handled(self.now)
        self.look()

    def look(self):
        self.told += self.reader.latencies()
        passed = [record for record in self.marked if record.reader is self.reader]
        self.expected += [(record.handled - record.received) / 1e9 for record in passed]
        self.marked = [record for record in self.marked if record.reader is not self.reader]

    def restart_reader(self):
        self.reader.close()
        self.reader = MarkReader(self.path)
        self.attach()
        self.marked = [record for record in self.marked if record.reader is None]

    def kill_reader(self, count):
        """While it takes records out."""
        self.reader.taking()
        count = min(count, len(self.records) - self.queued - self.taken)
        if count:
            os.read(self.fifo, SIZE * count)
        self.taken += count
        self.mark(0)
        self.restart_reader()
        self.marked = []

    def restart_writer(self):
        self.writer.close()
        self.writer = MarkWriter(self.path)

    def tick(self, by):
        self.now += by

    def close(self):
        self.writer.close()
        self.reader.close()
        os.close(self.fifo)
        os.close(self.pen)


counts = st.integers(1, 9)
steps = st.one_of(
    st.tuples(st.sampled_from(["write", "write", "queue", "take", "take", "kill_reader"]), counts),
    st.tuples(st.just("mark"), st.integers(0, 12)),
    st.tuples(st.just("tick"), st.integers(1, 1000)),
    st.tuples(st.sampled_from(["restart_reader", "restart_writer", "look", "drain"])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_each_mark_tells_its_trades_latency_or_nothing_over_restarts_of_either_side(tmp_path_factory, steps):
    with contextlib.closing(Stream(tmp_path_factory.mktemp("stream"))) as stream:
        for name, *arguments in steps:
            getattr(stream, name)(*arguments)
        stream.drain()
        stream.take(len(stream.records))
        stream.look()
        assert sorted(stream.told) == sorted(stream.expected)


def test_no_mark_is_made_where_something_else_than_trades_changed_the_stream(tmp_path):
    with contextlib.closing(Stream(tmp_path)) as stream:
        stream.write(3)
        stream.writer.mark(stream.fifo, behind=SIZE, edits=60, time_ns=1)
        stream.take(3)
        assert stream.told == []
        stream.write(1)
        stream.writer.mark(stream.fifo, behind=SIZE, edits=60, time_ns=0)
        stream.tick(5)
        stream.reader.taking()
        stream.reader.took(SIZE)
        stream.reader.handled(stream.now)
        assert list(stream.reader.latencies()) == [5e-9]


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * SIZE_OF_FILE, bytes(SIZE_OF_FILE), bytes(100)], ids=["empty", "ones", "zeros", "short"]
)
def test_what_is_no_file_of_marks_is_replaced_by_the_balancer_and_nothing_to_a_worker(tmp_path, content):
    path = tmp_path / "shard-0"
    path.write_bytes(content)
    reader = MarkReader(path)
    reader.attach(1)
    reader.taking()
    reader.took(10)
    reader.handled(1)
    assert list(reader.latencies()) == []
    MarkWriter(path).close()
    reader.attach(1)
    reader.taking()
    reader.close()
    assert path.stat().st_size == SIZE_OF_FILE
    assert path.stat().st_mode & 0o777 == 0o660


def test_a_directory_that_cannot_be_written_costs_the_marks_only(tmp_path, caplog):
    (tmp_path / "marks").write_text("in the way")
    writer = MarkWriter(tmp_path / "marks" / "shard-0")
    writer.mark(0, behind=0, edits=0, time_ns=0)
    writer.close()
    assert "marks not written" in caplog.text
