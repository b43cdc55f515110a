"""A worker as its users run it: a real process on a real FIFO, over restarts of either side."""

import contextlib
import itertools
import os
import re
import signal
import socket
import sqlite3
import threading
import time

import pytest

from tests.waiting import until
from tests.workers import Bench, trade
from tradebal.stream import framing
from tradebal.stream.gap import Gap


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def lines(numbers):
    return b"".join(trade(number) + b"\n" for number in numbers)


def trades(numbers):
    return [trade(number) for number in numbers]


def test_worker_started_first_says_what_it_waits_for_and_then_gets_everything(bench):
    worker = bench.worker()
    worker.says(f"waiting for the balancer to make the FIFO: shard=0 fifo={bench.directory}/shard-0.fifo")
    balancer = bench.balancer()
    balancer.write(lines(range(1000)))
    until(lambda: len(bench.seen()) == 1000, "1000 trades")
    assert worker.stop() == 0
    assert bench.seen() == [*trades(range(1000)), b"closed"]
    assert worker.log().count("waiting for the balancer") == 1


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_sigterm_drains_the_fifo_before_the_end(bench, kind):
    bench.configure(f"file = '{bench.seen_file}'", handler="collect:Collect", shards=f"framing = '{kind}'")
    balancer = bench.balancer()
    worker = bench.worker()
    worker.says("opened: shard=0")
    os.kill(worker.pid, signal.SIGSTOP)
    balancer.write(b"".join(framing.encode(trade(n), kind) for n in range(1500)))
    worker.send(signal.SIGTERM)
    os.kill(worker.pid, signal.SIGCONT)
    assert worker.ends() == 0
    assert bench.seen() == [*trades(range(1500)), b"closed"]
    assert balancer.unread() == 0


def test_worker_that_stops_while_the_balancer_writes_on_takes_no_part_of_a_record_with_it(bench):
    # Slower than the balancer, so that the FIFO is never empty.
    bench.configure(f"file = '{bench.seen_file}'\ntakes = 0.01", handler="collect:Collect", worker="read_size = '4KiB'")
    balancer = bench.balancer()
    worker = bench.worker()
    stream = lines(range(100_000))
    written = 0
    stopped = threading.Event()

    def write():
        nonlocal written
        while not stopped.is_set():
            # Pieces that end anywhere but at a record's end.
            start = written % len(stream)
            piece = stream[start : start + 4999]
            balancer.write(piece)
            written += len(piece)

    writer = threading.Thread(target=write)
    writer.start()
    rest = b""
    try:
        until(lambda: bench.seen() and balancer.unread() > 32768, "trades, and more than the worker can take")
        worker.send(signal.SIGTERM)
        worker.says("stopping: shard=0")
        # The second signal doesn't wait for an empty FIFO.
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0
    finally:
        stopped.set()
        while writer.is_alive():
            rest += balancer.rest()
            writer.join(0.01)
    rest += balancer.rest()
    seen = bench.seen()
    assert seen.pop() == b"closed"
    whole = stream * (written // len(stream) + 1)
    assert b"".join(line + b"\n" for line in seen) + rest == whole[:written]


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_worker_killed_while_a_record_is_incomplete_costs_nothing(bench, kind):
    bench.configure(f"file = '{bench.seen_file}'", handler="collect:Collect", shards=f"framing = '{kind}'")
    frames = [framing.encode(trade(number), kind) for number in range(20)]
    balancer = bench.balancer()
    worker = bench.worker()
    balancer.write(b"".join(frames[:10]) + frames[10][:9])
    until(lambda: balancer.unread() == 9, "the worker to leave nothing but the beginning")
    worker.kill()
    balancer.write(frames[10][9:] + b"".join(frames[11:]))
    successor = bench.worker()
    until(lambda: len(bench.seen()) == 20, "10 more trades")
    assert bench.seen() == trades(range(20))
    assert successor.stop() == 0


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_worker_killed_in_the_middle_of_a_long_record_costs_that_record_only_and_says_so(bench, kind):
    bench.configure(f"file = '{bench.seen_file}'", handler="collect:Collect", shards=f"framing = '{kind}'")
    frames = [framing.encode(trade(number), kind) for number in range(20)]
    long = framing.encode(b'{"q":"' + b"x" * 300_000 + b'"}', kind)
    balancer = bench.balancer(size=1 << 20)
    worker = bench.worker()
    balancer.write(b"".join(frames[:10]) + long[:200_000])
    balancer.until_read()
    worker.kill()
    balancer.write(long[200_000:] + b"".join(frames[10:]))
    successor = bench.worker()
    until(lambda: len(bench.seen()) == 21, "10 more trades and a gap")
    assert bench.seen() == [*trades(range(10)), b"gap restart", *trades(range(10, 20))]
    successor.says(f"torn record dropped: shard=0 bytes={len(long) - 200_000}")
    until(lambda: bench.figure("tradebal_worker_gaps_total", reason="restart") == 1, "the gap's metric")
    assert successor.stop() == 0


@pytest.mark.parametrize("size", [1 << 12, 1 << 16, 1 << 20])
def test_record_longer_than_the_fifo_comes_through_whole(bench, size):
    bench.configure(f"file = '{bench.seen_file}'", handler="collect:Collect")
    balancer = bench.balancer(size=size)
    worker = bench.worker()
    long = b'{"q":"' + b"x" * 1_048_000 + b'"}'
    balancer.write(lines(range(100)) + long + b"\n" + lines(range(100, 200)))
    until(lambda: len(bench.seen()) == 201, "all records")
    assert bench.seen() == [*trades(range(100)), long, *trades(range(100, 200))]
    assert worker.stop() == 0


def test_workers_killed_at_speed_lose_nothing_and_repeat_a_batch_each_at_most(bench):
    balancer = bench.balancer()
    sent = 0
    written = threading.Event()

    def write():
        nonlocal sent
        while not written.is_set():
            # Pieces that end anywhere but at a record's end.
            data = lines(range(sent, sent + 1000))
            for start in range(0, len(data), 999):
                balancer.write(data[start : start + 999])
            sent += 1000

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for megabytes in range(1, 6):
            worker = bench.worker()
            until(lambda: bench.size() > megabytes * 1_000_000, "a megabyte more")  # noqa: B023
            worker.kill()
    finally:
        written.set()
        last = bench.worker()
        writer.join()
    balancer.until_read()
    assert last.stop() == 0
    # The kill may have cut the handler's own write short.
    numbers = list(map(int, re.findall(rb'{"ev":"T","sym":"S\d","q":(\d+)}\n', bench.seen_file.read_bytes())))
    assert sorted(set(numbers)) == list(range(sent))
    back = [(before, after) for before, after in itertools.pairwise(numbers) if after != before + 1]
    assert len(back) <= 5
    assert all(after <= before for before, after in back)


LEDGER = '''
"""Keeps the trades, and the receipt of the batch that they came in, in one transaction."""
import os
import signal
import sqlite3
from tradebal.handlers import Handler


class Ledger(Handler):
    def __init__(self, context, *, kills=False):
        super().__init__(context)
        self.kills = kills
        self.base = sqlite3.connect("ledger.db")
        self.base.execute("CREATE TABLE IF NOT EXISTS trades (number INTEGER)")
        self.base.execute("CREATE TABLE IF NOT EXISTS receipts (receipt BLOB)")

    def committed(self):
        row = self.base.execute("SELECT receipt FROM receipts").fetchone()
        return row and row[0]

    def on_trades(self, batch):
        with self.base:
            self.base.executemany("INSERT INTO trades VALUES (?)", [(trade["q"],) for trade in batch.trades()])
            self.base.execute("DELETE FROM receipts")
            self.base.execute("INSERT INTO receipts VALUES (?)", (batch.receipt,))
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        self.base.close()
'''


def test_handler_that_keeps_receipts_gets_each_trade_exactly_once_though_killed_behind_each_commit(bench):
    (bench.directory / "ledger.py").write_text(LEDGER)
    bench.configure("kills = true", handler="ledger:Ledger")
    balancer = bench.balancer()
    gap = Gap("disconnect", 1, 2).to_record() + b"\n"
    for first in (0, 100, 200):
        balancer.write(lines(range(first, first + 50)) + gap + lines(range(first + 50, first + 100)))
        assert bench.worker().ends() == -signal.SIGKILL
    bench.configure("", handler="ledger:Ledger")
    worker = bench.worker()
    balancer.until_read()
    assert worker.stop() == 0
    with contextlib.closing(sqlite3.connect(bench.directory / "ledger.db")) as base:
        assert [number for (number,) in base.execute("SELECT number FROM trades")] == list(range(300))


def test_balancer_killed_in_the_middle_of_a_record_is_a_gap_and_its_successor_is_read(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    balancer.write(lines(range(10)) + trade(10)[:7])
    until(lambda: balancer.unread() == 7, "the worker to leave nothing but the beginning")
    balancer.close()
    worker.says("torn record dropped: shard=0 bytes=7")
    successor = bench.balancer()
    successor.write(lines(range(11, 20)))
    until(lambda: len(bench.seen()) == 20, "9 more trades and a gap")
    assert bench.seen() == [*trades(range(10)), b"gap restart", *trades(range(11, 20))]
    assert worker.stop() == 0


def test_worker_with_nothing_but_a_records_beginning_waits_without_working(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    balancer.write(lines(range(10)) + trade(10)[:7])
    until(lambda: balancer.unread() == 7, "the worker to leave nothing but the beginning")
    before = bench.figure("tradebal_unit_cpu_seconds_total")
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1, "a second")
    assert bench.figure("tradebal_unit_cpu_seconds_total") - before < 0.3
    balancer.write(trade(10)[7:] + b"\n")
    until(lambda: len(bench.seen()) == 11, "the record")
    assert worker.stop() == 0


def test_what_a_dead_balancer_left_in_its_fifo_is_handled_before_its_successors_trades(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    worker.says("opened: shard=0")
    os.kill(worker.pid, signal.SIGSTOP)
    balancer.write(lines(range(1000)))
    balancer.close()
    successor = bench.balancer()
    successor.write(lines(range(1000, 2000)))
    os.kill(worker.pid, signal.SIGCONT)
    until(lambda: len(bench.seen()) == 2000, "2000 trades")
    assert worker.stop() == 0
    assert bench.seen() == [*trades(range(2000)), b"closed"]


def test_worker_that_was_paused_for_long_reads_the_old_fifo_to_its_end_before_it_opens_the_new_one(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    worker.says("opened: shard=0")
    for first in range(0, 5000, 1000):  # a pause that begins between two waits shows nothing
        os.kill(worker.pid, signal.SIGSTOP)
        balancer.write(lines(range(first, first + 500)))
        balancer.close()
        balancer = bench.balancer()
        balancer.write(lines(range(first + 500, first + 1000)))
        # Its longest wait (metrics.interval) ends meanwhile, so that epoll_wait returns nothing afterwards.
        began = time.monotonic()
        until(lambda began=began: time.monotonic() > began + 0.2, "the worker's wait to be over")
        os.kill(worker.pid, signal.SIGCONT)
        until(lambda seen=first + 1000: len(bench.seen()) >= seen, f"{first + 1000} trades")
    assert worker.stop() == 0
    assert bench.seen() == [*trades(range(5000)), b"closed"]


def test_new_fifo_is_found_even_if_somebody_still_holds_the_old_one(bench):
    old = bench.balancer()
    worker = bench.worker()
    old.write(lines(range(10)))
    old.until_read()
    bench.balancer().write(lines(range(10, 20)))
    until(lambda: len(bench.seen()) == 20, "20 trades")
    assert worker.stop() == 0
    assert bench.seen() == [*trades(range(20)), b"closed"]


def test_second_worker_on_a_shard_is_refused_and_told_the_firsts_pid(bench):
    bench.balancer()
    first = bench.worker()
    first.says("opened: shard=0")
    second = bench.worker()
    assert second.ends() == 3
    assert f"another process (pid {first.pid}) reads this shard" in second.log()
    assert "Traceback" not in second.log()
    assert first.stop() == 0


def test_shard_that_is_not_configured_is_refused(bench):
    worker = bench.worker(2)
    assert worker.ends() == 2
    assert "there is no shard 2: [shards] count = 2, so shards are 0 to 1" in worker.log()


def test_something_else_at_the_fifos_place_is_an_error_and_no_trade(bench):
    (bench.directory / "shard-0.fifo").write_bytes(lines(range(3)))
    worker = bench.worker()
    assert worker.ends() == 1
    assert "shard-0.fifo is not a FIFO" in worker.log()
    assert "Traceback" not in worker.log()


def test_gaps_come_in_their_places_among_the_trades(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    overflow = Gap("overflow", 1, 2, 17).to_record() + b"\n"
    disconnect = Gap("disconnect", 1, 2).to_record() + b"\n"
    balancer.write(disconnect + lines(range(3)) + overflow + overflow + lines(range(3, 5)) + disconnect)
    until(lambda: len(bench.seen()) == 9, "5 trades and 4 gaps")
    assert worker.stop() == 0
    assert bench.seen() == [
        b"gap disconnect", *trades(range(3)), b"gap overflow", b"gap overflow", *trades(range(3, 5)),
        b"gap disconnect", b"closed",
    ]  # fmt: skip
    assert bench.figure("tradebal_worker_gaps_total", reason="overflow") == 2
    assert bench.figure("tradebal_worker_gaps_total", reason="disconnect") == 2
    assert bench.figure("tradebal_worker_gaps_total", reason="restart") == 0
    assert bench.figure("tradebal_worker_trades_total") == 5


FAILS = """
from tradebal.handlers import Handler


class Fails(Handler):
    handled = 0

    def on_trades(self, batch):
        for trade in batch.trades():
            if trade["q"] == 13:
                raise LookupError("no luck\\nwith", trade["q"])
        self.handled += len(batch)

    def close(self):
        print("handled", self.handled, flush=True)
"""


def test_exception_in_a_handler_is_logged_with_its_batch_and_counted_and_the_worker_goes_on(bench):
    (bench.directory / "fails.py").write_text(FAILS)
    bench.configure("", handler="fails:Fails")
    balancer = bench.balancer()
    worker = bench.worker()
    for number in (1, 13, 2):
        balancer.write(lines([number]))
        balancer.until_read()
    worker.says("handler failed")
    assert worker.stop() == 0
    [line] = [line for line in worker.log().splitlines() if "handler failed" in line]
    assert "shard=0 handler=fails:Fails call=on_trades" in line
    assert "begins=b'" + trade(13).decode() in line
    assert "LookupError" in line
    assert f"{bench.directory}/fails.py:11 in on_trades" in line
    assert "handled 2" in worker.log()
    assert bench.figure("tradebal_worker_handler_exceptions_total") == 1
    assert bench.figure("tradebal_worker_trades_total") == 3


def test_exception_ends_the_worker_where_the_configuration_asks_for_that(bench):
    (bench.directory / "fails.py").write_text(FAILS)
    bench.configure("", handler="fails:Fails", worker="on_error = 'stop'")
    balancer = bench.balancer()
    worker = bench.worker()
    balancer.write(lines([13]))
    assert worker.ends() == 1
    assert "handler failed" in worker.log()
    assert "stopping" in worker.log()
    assert "handled 0" in worker.log()
    assert "Traceback" not in worker.log()
    assert balancer.unread() == len(lines([13]))  # left to the next start


TICKS = """
import time
from tradebal.handlers import Handler


class Ticks(Handler):
    def on_trades(self, batch):
        time.sleep(0.01)

    def on_tick(self, now):
        print("tick", abs(now - time.time()) < 1, flush=True)
"""


def test_ticks_come_when_nothing_does_and_under_load(bench):
    (bench.directory / "ticks.py").write_text(TICKS)
    bench.configure("", handler="ticks:Ticks", worker="read_size = '4KiB'")
    balancer = bench.balancer()
    worker = bench.worker()
    until(lambda: worker.log().count("tick True") >= 2, "two ticks without trades")
    before = worker.log().count("tick True")
    data = lines(range(5000))

    def ticked_again():
        if balancer.unread() < 32768:
            balancer.write(data[:32768])
        return worker.log().count("tick True") >= before + 2

    until(ticked_again, "two ticks while the FIFO is never empty")
    worker.kill()


SHOWS_COLLECTOR = """
import gc
from tradebal.handlers import Handler


class Shows(Handler):
    def on_trades(self, batch):
        self.context.log.info("collector: frozen=%s first=%d", gc.get_freeze_count() > 10_000, gc.get_threshold()[0])
"""


def test_the_garbage_collector_leaves_alone_what_was_imported_and_seldom_looks_at_trades(bench):
    (bench.directory / "shows.py").write_text(SHOWS_COLLECTOR)
    bench.configure("", handler="shows:Shows")
    balancer = bench.balancer()
    worker = bench.worker()
    balancer.write(lines(range(1)))
    worker.says("collector: frozen=True first=100000")
    assert worker.stop() == 0


def test_every_series_is_there_before_the_first_trade(bench):
    bench.worker().says("waiting for the balancer")
    path = bench.directory / "metrics" / "worker-0.prom"
    until(path.exists, "the metrics file")
    text = path.read_text()
    for name in ("trades", "bytes", "batches", "undecodable", "handler_exceptions"):
        assert f'\ntradebal_worker_{name}_total{{shard="0"}} 0.0\n' in text
    for reason in ("disconnect", "overflow", "restart"):
        assert f'\ntradebal_worker_gaps_total{{reason="{reason}",shard="0"}} 0.0\n' in text
    assert '\ntradebal_worker_handler_seconds_count{shard="0"} 0.0\n' in text
    assert '\ntradebal_worker_latency_seconds_count{shard="0"} 0.0\n' in text
    assert '\ntradebal_worker_provider_latency_seconds_count{shard="0"} 0.0\n' in text
    assert '\ntradebal_worker_last_read_timestamp_seconds{shard="0"} 0.0\n' in text
    assert '\ntradebal_unit_cpu_seconds_total{shard="0",unit="worker-0"} ' in text


def test_the_time_that_trades_were_under_way_is_told(bench):
    balancer = bench.balancer()
    worker = bench.worker()
    began = time.time()
    balancer.write(b'{"ev":"T","sym":"A","t":%d}\n{"ev":"T","sym":"A"}\n' % int((began - 2) * 1000))
    balancer.until_read()
    until(lambda: bench.figure("tradebal_worker_provider_latency_seconds_count") == 1, "one batch")
    assert 2 <= bench.figure("tradebal_worker_provider_latency_seconds_sum") <= 3 + time.time() - began
    assert began - 1 <= bench.figure("tradebal_worker_last_read_timestamp_seconds") <= time.time()
    balancer.write(b'{"ev":"T","sym":"A","t":"no time"}\n')
    balancer.write(b"[]\n")
    until(lambda: bench.figure("tradebal_worker_trades_total") == 4, "all")
    assert bench.figure("tradebal_worker_provider_latency_seconds_count") == 1
    worker.kill()


def test_systemd_hears_ready_signs_of_life_and_stopping(bench):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(bench.directory / "notify"))
        worker = bench.worker(NOTIFY_SOCKET=str(bench.directory / "notify"), WATCHDOG_USEC="100000")
        heard = [systemd.recv(256) for _ in range(4)]
        assert heard.count(b"READY=1") == 1
        assert heard.count(b"WATCHDOG=1") == 3
        worker.send(signal.SIGTERM)
        while (message := systemd.recv(256)) != b"STOPPING=1":
            assert message == b"WATCHDOG=1"
    assert worker.ends() == 0
