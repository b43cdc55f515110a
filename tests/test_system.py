"""Every trade that the provider sends reaches one worker once, in order, whatever happens around it."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import KEY, System
from tests.waiting import until
from tradebal.market.certificate import ThrowAwayAuthority
from tradebal.market.connection import Manners
from tradebal.market.dialogue import MassiveDialogue
from tradebal.market.playback import Block, Prepared
from tradebal.market.server import Provider
from tradebal.router.frames import server_frame

SYMBOLS = [b"AAPL", b"MSFT", b"SPY", b"BRK.B", b"TSLA", b"F", b"NVDA", b"QQQ"]


def trade(number):
    return b'{"ev":"T","sym":"%s","x":4,"i":"%d","p":114.125,"s":100,"c":[0,12],"t":1536036818784,"q":%d}' % (
        SYMBOLS[number * number % len(SYMBOLS)],
        number,
        number,
    )


@dataclass
class Numbered:
    """A playback of trades 1 to `count`, as fast as the client reads, `per_frame` in each message."""

    count: int
    per_frame: int = 50
    paced: bool = False

    def chunks(self):
        for first in range(1, self.count + 1, self.per_frame):
            numbers = range(first, min(first + self.per_frame, self.count + 1))
            message = b"[" + b",".join(map(trade, numbers)) + b"]"
            yield Prepared(0.0, Block(server_frame(message), 1, len(numbers), first))


@dataclass
class Steady:
    """A playback of `rate` trades a second, 5 in each message, for `seconds`."""

    rate: int
    seconds: int
    paced: bool = True

    def chunks(self):
        for first in range(1, self.rate * self.seconds, 5):
            message = b"[" + b",".join(map(trade, range(first, first + 5))) + b"]"
            yield Prepared(first / self.rate, Block(server_frame(message), 1, 5, first))


@contextlib.contextmanager
def provider(playback, **options):
    with Provider(playback, lambda: MassiveDialogue(keys=[KEY]), **options) as serving:
        yield serving


def assert_all_there(system, count):
    audits = system.audits()
    assert sum(audit["trades"] for audit in audits) == count
    assert [audit["disordered"] for audit in audits] == [0] * len(audits)
    assert [audit["unnumbered"] for audit in audits] == [0] * len(audits)
    assert [audit["gaps"] for audit in audits] == [[]] * len(audits)
    assert max(audit["last"] for audit in audits) == count


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_every_trade_reaches_one_worker_once_and_in_order(tmp_path, tls):
    authority = ThrowAwayAuthority() if tls else None
    if authority:
        authority.write(tmp_path / "ca.pem")
    trust = f'ca_file = "{tmp_path}/ca.pem"' if authority else ""
    with (
        provider(Numbered(60_000), tls=authority.server_context() if authority else None) as serving,
        System(tmp_path, serving.url, workers=3, feed=trust) as system,
    ):
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 60_000)
        system.stop_all()
        assert_all_there(system, 60_000)
        assert system.value("tradebal_trades_total") == 60_000
        assert not list(system.run.glob("*.fifo"))


def test_length32_framing_carries_the_same_trades(tmp_path):
    with (
        provider(Numbered(20_000)) as serving,
        System(tmp_path, serving.url, shards='framing = "length32"') as system,
    ):
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 20_000)
        system.stop_all()
        assert_all_there(system, 20_000)


def test_workers_that_start_late_and_restart_lose_nothing(tmp_path):
    with provider(Numbered(60_000)) as serving, System(tmp_path, serving.url) as system:
        system.start("worker", 0)  # before the balancer
        system.start("balancer")
        system.wait_for("tradebal_trades_total", 60_000)
        system.start("worker", 1)  # long after: its trades wait
        system.wait_for("tradebal_worker_trades_total", 1000, shard="1")
        system.stop("worker-1")
        early = system.audit(1)
        system.start("worker", 1)
        until(lambda: system.log("worker-1").count("opened:") == 2, "worker 1 to be back")
        system.stop_all()
        late = system.audit(1)
        trades = system.audit(0)["trades"] + early["trades"] + late["trades"]
        assert trades == 60_000
        assert late["first"] > early["last"] or not late["trades"]


def test_a_stopped_worker_holds_up_nobody_else(tmp_path):
    with provider(Numbered(60_000)) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        until(lambda: (system.run / "metrics" / "worker-0.prom").exists(), "worker 0 to be up")
        os.kill(system.processes["worker-0"].pid, signal.SIGSTOP)
        system.wait_for("tradebal_trades_total", 60_000)
        others = system.value("tradebal_shard_trades_total", shard="1")
        system.wait_for("tradebal_worker_trades_total", others, shard="1")
        os.kill(system.processes["worker-0"].pid, signal.SIGCONT)
        system.wait_for("tradebal_worker_trades_total", 60_000)
        system.stop_all()
        assert_all_there(system, 60_000)


def test_beyond_the_overflow_limit_trades_are_dropped_counted_exactly_and_announced(tmp_path):
    with (
        provider(Numbered(60_000)) as serving,
        System(tmp_path, serving.url, overflow='limit = "256KiB"') as system,
    ):
        system.start("balancer")
        system.start("worker", 1)
        system.wait_for("tradebal_trades_total", 60_000)
        system.wait_for("tradebal_shard_dropped_trades_total", 1, shard="0")
        system.start("worker", 0)
        system.wait_for("tradebal_worker_trades_total", 1000, shard="0")
        until(lambda: system.value("tradebal_shard_overflow_bytes") == 0, "shard 0 to catch up")
        system.stop_all()
        for shard, audit in enumerate(system.audits()):
            routed = system.value("tradebal_shard_trades_total", shard=str(shard))
            dropped = system.value("tradebal_shard_dropped_trades_total", shard=str(shard))
            assert audit["trades"] == routed - dropped
            assert audit["disordered"] == 0
            assert set(audit["gaps"]) == ({"overflow"} if dropped else set())
        assert "dropped=" in system.log("balancer")


def test_when_full_block_holds_the_provider_up_and_loses_nothing(tmp_path):
    with (
        provider(Numbered(60_000), manners=Manners(buffer_limit=0)) as serving,
        System(tmp_path, serving.url, overflow='when_full = "block"\nlimit = "64KiB"') as system,
    ):
        system.start("balancer")
        system.start("worker", 1)
        system.wait_for("tradebal_shard_overflow_bytes", 1, shard="0")
        system.start("worker", 0)
        system.wait_for("tradebal_worker_trades_total", 60_000)
        system.stop_all()
        assert_all_there(system, 60_000)


def test_the_time_from_receipt_to_handling_is_told_also_of_what_waited_for_a_new_worker(tmp_path):
    def latencies(**labels):
        return system.value("tradebal_worker_latency_seconds_bucket", shard="0", **labels)

    with provider(Steady(500, 30)) as serving, System(tmp_path, serving.url, workers=1) as system:
        system.start_all()
        until(lambda: latencies(le="+Inf") >= 10, "10 trades to be timed")
        # Not all: another process may have had the processor for long.
        assert latencies(le="0.25") > latencies(le="+Inf") / 2
        system.stop("worker-0", signal.SIGKILL)
        routed = system.value("tradebal_trades_total")
        system.wait_for("tradebal_trades_total", routed + 1000)
        system.start("worker", 0)
        until(lambda: latencies(le="+Inf") - latencies(le="1.0") >= 5, "5 trades that waited for more than a second")
        timed = latencies(le="0.25")
        until(lambda: latencies(le="0.25") >= timed + 5, "5 that didn't wait")


def test_a_second_balancer_refuses_and_names_the_first(tmp_path):
    with provider(Numbered(1)) as serving, System(tmp_path, serving.url) as system:
        first = system.start("balancer")
        until(lambda: (system.run / "shard-0.fifo").exists(), "the first balancer's FIFOs")
        system.config = system.config.rename(tmp_path / "second.toml")
        system.processes["first"] = first
        second = system.start("balancer")
        assert second.wait(timeout=30) == 3
        assert f"another balancer (pid {first.pid}) is running" in system.log("balancer")
        assert "Traceback" not in system.log("balancer")


def test_a_killed_balancer_comes_back_and_workers_find_it_again(tmp_path):
    with provider(Numbered(30_000)) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 30_000)
        system.stop("balancer", signal.SIGKILL)
        system.start("balancer")  # the provider plays the playback again
        system.wait_for("tradebal_worker_trades_total", 60_000)
        system.stop_all()
        assert sum(audit["trades"] for audit in system.audits()) == 60_000


def test_a_lost_connection_is_announced_to_every_worker(tmp_path):
    with provider(Numbered(2000)) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 2000)
        port = serving.port
        serving.stop()
        with provider(Numbered(2000), port=port):
            system.wait_for("tradebal_worker_trades_total", 4000)
            system.stop_all()
        assert [audit["gaps"] for audit in system.audits()] == [["disconnect"], ["disconnect"]]
        assert system.value("tradebal_disconnects_total") >= 1


def test_what_cannot_be_routed_is_kept_and_what_stands_beside_it_is_routed(tmp_path):
    good, bad = trade(1), b'{"ev":"T","x":4,"q":2}'
    message = b"[" + good + b"," + bad + b"," + trade(3) + b"]"

    class Playback:
        paced = False

        def chunks(self):
            yield Prepared(0.0, Block(server_frame(message), 1, 2, 1))

    with provider(Playback()) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 2)
        system.wait_for("tradebal_rejects_total", 1)
        system.stop_all()
        assert b"no usable symbol" in (system.overflow / "rejects.ndjson").read_bytes()
        assert "no usable symbol" in system.log("balancer")


def test_the_feed_key_stands_in_no_log_metric_file_or_command_line(tmp_path):
    with provider(Numbered(100)) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 100)
        for process in system.processes.values():
            assert KEY.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        system.stop_all()
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert KEY.encode() not in path.read_bytes(), path
