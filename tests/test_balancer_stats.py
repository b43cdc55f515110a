"""The statistics lines: the founding system's fields in its order, exact totals, and never a wait for their reader."""

import os
import re

from tradebal.balancer.stats import LineWriter, StatsLines
from tradebal.router.interface import Batch

LINE = re.compile(
    r"\[(\d+\.\d{5})\] Rate \{r (\d+)\} \{f (\d+)\} \{f/r (\d+\.\d\d)\} \{t/f (\d+\.\d\d)\} \{tt (\d+)\} \{ttt (\d+)\}"
    r" \{br (\d+)\} \{bt (\d+)\}: (\d+\.\d\d) t/s(?: \((\d+) batches\))?\n"
)


def batch(number, elapsed_ns, reads=4, frames=64, received=900_000):
    return Batch(
        time_ns=1_606_487_400_123_450_000 + number * elapsed_ns,
        elapsed_ns=elapsed_ns,
        reads=reads,
        frames=frames,
        bytes=received,
        connection_trades=8192 * number,
        total_trades=8192 * number + 5,
        total_bytes=900_000 * number,
    )


def lines_of(*batches):
    written = []
    stats = StatsLines(written.append)
    stats.add(batches)
    return "".join(written).splitlines(keepends=True), stats


def test_a_batch_makes_a_line_with_all_fields():
    lines, _ = lines_of(batch(1, 10_240_000))
    fields = LINE.fullmatch(lines[-1])
    assert fields, lines
    assert fields.groups() == (
        "1606487400.13369", "4", "64", "16.00", "128.00", "8192", "8197", "900000", "900000", "800000.00", None,
    )  # fmt: skip


def test_a_batch_out_of_what_was_already_buffered_has_no_reads_and_divides_by_none():
    lines, _ = lines_of(batch(1, 10_000_000, reads=0, received=0))
    assert "{r 0} {f 64} {f/r 0.00}" in lines[-1]
    assert "{br 0}" in lines[-1]


def test_each_new_highest_and_lowest_rate_has_its_own_line():
    lines, stats = lines_of(batch(1, 20_000_000), batch(2, 10_000_000), batch(3, 15_000_000), batch(4, 40_000_000))
    assert [line.split(" at ")[0] for line in lines if line.startswith("new")] == [
        "new highest rate 409600.00 t/s",
        "new lowest rate 409600.00 t/s",
        "new highest rate 819200.00 t/s",
        "new lowest rate 204800.00 t/s",
    ]
    assert stats.highest == 819_200
    assert stats.lowest == 204_800
    assert stats.last == 204_800


def test_beyond_a_hundred_lines_a_second_batches_share_lines_and_none_is_forgotten():
    written = []
    stats = StatsLines(written.append)
    stats.add(batch(number, 1_000_000) for number in range(1, 1001))  # one second at 8 million trades a second
    stats.finish()
    lines = [LINE.fullmatch(line) for line in "".join(written).splitlines(keepends=True) if "Rate" in line]
    assert all(lines)
    assert 95 <= len(lines) <= 102
    assert sum(int(line[11] or 1) for line in lines) == 1000
    assert sum(int(line[2]) for line in lines) == 4000
    assert lines[-1][6] == str(8192 * 1000)


def test_a_reader_that_stands_still_costs_lines_but_never_a_wait():
    read, write = os.pipe()
    writer = LineWriter(write)
    for _ in range(3000):
        writer.write("x" * 99 + "\n")  # 300 KB into a pipe of 64 KiB: a blocking write would hang here
    taken = os.read(read, 1 << 20)
    writer.write("end\n")
    taken += os.read(read, 1 << 20)
    assert set(taken.splitlines()) == {b"x" * 99, b"end"}
    os.close(read)
    writer.write("nobody reads this\n")  # a closed pipe neither
    os.close(write)


def test_batches_whose_line_found_no_room_are_part_of_the_next_line():
    room, noted = [], []

    def note(line, _event, _rate):
        if room and " Rate {" in line:
            noted.append(line)
        return bool(room)

    stats = StatsLines(print, note)
    second = 1_000_000_000
    stats.add([Batch(second, 1, 1, 1, 1, 8192, 8192, 1)])
    room.append(True)
    stats.add([Batch(2 * second, 1, 1, 1, 1, 16384, 16384, 2)])
    assert [line.rpartition(" t/s ")[2] for line in noted] == ["(2 batches)"]
