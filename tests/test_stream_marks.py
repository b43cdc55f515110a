"""Marks in a shard's stream: what they say of a trade's latency is right, or nothing."""

import contextlib
import math
import os
import stat
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system import System
from tests.test_system import Steady, provider
from tradebal.stream.marks import MarkReader, MarkWriter, path_of

SIZE = 10
"""Bytes of each record."""
SIZE_OF_FILE = 16400


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
        self.now = 1
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
        stream.writer.mark(stream.fifo, behind=SIZE, edits=60, time_ns=1)
        stream.tick(5)
        stream.reader.taking()
        stream.reader.took(SIZE)
        stream.reader.handled(stream.now)
        assert list(stream.reader.latencies()) == [5e-9]


NONSENSE = {"empty": b"", "ones": b"\xff" * SIZE_OF_FILE, "zeros": bytes(SIZE_OF_FILE), "short": bytes(100)}


def files(path):
    return path, path.with_name(f"{path.name}.taken")


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_file_of_marks_is_replaced_by_the_balancer_and_nothing_to_a_worker(tmp_path, content):
    path = tmp_path / "shard-0"
    for file in files(path):
        file.write_bytes(content)
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


def test_only_the_workers_own_file_may_be_written_by_the_group_and_nothing_by_others(tmp_path):
    path = tmp_path / "marks" / "shard-0"
    MarkWriter(path).close()
    assert [stat.filemode(file.stat().st_mode) for file in files(path)] == ["-rw-r-----", "-rw-rw----"]
    assert path.parent.stat().st_mode & 0o027 == 0


corruptions = st.tuples(
    st.sampled_from([0, 1]), st.sampled_from(["truncate", "overwrite", "replace", "remove"]), st.binary(max_size=120)
)


def corrupt(file, how, data):
    if how == "truncate":
        with contextlib.suppress(FileNotFoundError):
            os.truncate(file, len(data))
    elif how == "overwrite":
        file.touch()
        with file.open("r+b") as there:
            there.seek(8 * (data[:1] or b"\0")[0] % 48)
            there.write(data)
    else:
        file.unlink(missing_ok=True)
        if how == "replace":
            file.write_bytes(data)


words = st.sampled_from([0, 1, 2**62, 2**63, 2**64 - 1])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(steps, corruptions, st.tuples(st.just("forge"), st.lists(words, min_size=4, max_size=4)))))
def test_whatever_is_done_to_the_files_neither_side_raises_and_no_trade_is_touched(tmp_path_factory, everything):
    with contextlib.closing(Stream(tmp_path_factory.mktemp("stream"))) as stream:
        for step in everything:
            if step[0] in (0, 1):
                corrupt(files(stream.path)[step[0]], *step[1:])
            elif step[0] == "forge":
                with contextlib.suppress(FileNotFoundError), files(stream.path)[1].open("r+b") as there:
                    there.seek(8)
                    there.write(b"".join(word.to_bytes(8, sys.byteorder) for word in step[1]))
            else:
                getattr(stream, step[0])(*step[1:])
        assert all(math.isfinite(told) and told >= 0 for told in stream.told)


def test_a_fifo_or_a_link_in_the_place_of_a_file_is_neither_opened_nor_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    path = tmp_path / "marks" / "shard-0"
    path.parent.mkdir()
    for file, partial in zip(files(path), (".shard-0.partial", ".shard-0.taken.partial"), strict=True):
        os.mkfifo(file)
        (path.parent / partial).symlink_to(victim)
    MarkWriter(path).close()
    assert all(stat.S_ISREG(file.lstat().st_mode) for file in files(path))
    assert victim.read_bytes() == b"kept"
    path.unlink()
    path.symlink_to(victim)
    reader = MarkReader(path)
    reader.attach(1)
    reader.took(10)
    assert list(reader.latencies()) == []
    assert victim.read_bytes() == b"kept"


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_a_live_balancer_and_worker_go_on_when_their_marks_are_overwritten_shortened_and_removed(tmp_path, content):
    with provider(Steady(rate=10_000, seconds=60)) as serving, System(tmp_path, serving.url, workers=1) as system:
        system.start_all()
        system.wait_for("tradebal_worker_latency_seconds_count", 1)

        def goes_on():
            system.wait_for("tradebal_worker_trades_total", system.value("tradebal_worker_trades_total") + 3000)
            assert [process.poll() for process in system.processes.values()] == [None, None]

        for file in files(path_of(system.run, 0)):
            with file.open("r+b") as there:
                there.truncate(0)
                there.write(content)
            goes_on()
            file.unlink()
            goes_on()
        system.stop_all()
        assert system.audit(0)["disordered"] == 0


def test_a_directory_that_cannot_be_written_costs_the_marks_only(tmp_path, caplog):
    (tmp_path / "marks").write_text("in the way")
    writer = MarkWriter(tmp_path / "marks" / "shard-0")
    writer.mark(0, behind=0, edits=0, time_ns=0)
    writer.close()
    assert "marks not written" in caplog.text
