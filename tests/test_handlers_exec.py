"""Exec: a shard piped to any command, over the command's deaths."""

import os
import signal
import time

import pytest

from tests.waiting import until
from tests.workers import Bench, trade
from tradebal.handlers import Batch, Context, Exec
from tradebal.stream import framing
from tradebal.stream.gap import Gap

GAP = Gap("overflow", 1, 2, 3)


def batch(numbers, kind="ndjson"):
    return Batch(b"".join(framing.encode(trade(number), kind) for number in numbers), kind, 1)


def lines(numbers):
    return b"".join(trade(number) + b"\n" for number in numbers)


def lost(context):
    return context.registry.get_sample_value("tradebal_exec_lost_bytes_total")


def starts(context):
    return context.registry.get_sample_value("tradebal_exec_starts_total")


@pytest.fixture
def context():
    return Context(shard=3, shards=8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_command_gets_the_records_as_framed_and_is_waited_for(out, kind):
    context = Context(shard=3, shards=8, framing=kind)
    handler = Exec(context, command=["dd", f"of={out}", "bs=64k", "status=none"])
    batches = [batch(range(n, n + 5000), kind) for n in range(0, 20000, 5000)]
    for each in batches:
        handler.on_trades(each)
    handler.on_gap(GAP)
    handler.close()
    assert out.read_bytes() == b"".join(each.raw for each in batches)
    assert lost(context) == 0


def test_gap_records_are_passed_on_if_asked_for(context, out):
    handler = Exec(context, command=["sh", "-c", f"cat > {out}"], gaps=True)
    handler.on_trades(batch([1]))
    handler.on_gap(GAP)
    handler.close()
    assert out.read_bytes() == lines([1]) + GAP.to_record() + b"\n"


def test_command_knows_its_shard_and_not_the_feeds_key(context, out, monkeypatch):
    monkeypatch.setenv("TRADEBAL_FEED_KEY", "hush")
    handler = Exec(context, command=["sh", "-c", f"env > {out}; cat"])
    handler.close()
    text = out.read_text()
    assert "TRADEBAL_SHARD=3\n" in text
    assert "TRADEBAL_SHARDS=8\n" in text
    assert "TRADEBAL_FRAMING=ndjson\n" in text
    assert "hush" not in text


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_next_command_begins_with_the_first_record_that_the_dead_one_had_not_read_whole(tmp_path, caplog, kind):
    context = Context(shard=3, shards=8, framing=kind)
    first, second = tmp_path / "first", tmp_path / "second"
    read = 40_003
    script = f"if [ -e {first} ]; then exec cat > {second}; fi; dd bs=1 count={read} of={first} status=none; exit 5"
    handler = Exec(context, command=["sh", "-c", script])
    big = batch(range(100_000), kind)  # more than its pipe holds, so that it dies while the batch is being written
    handler.on_trades(big)
    handler.close()
    assert first.read_bytes() == big.raw[:read]
    assert second.read_bytes() == big.raw[framing.split(big.raw[:read], kind)[0] :]
    assert starts(context) == 2
    assert lost(context) == 0
    assert "command ended: shard=3 command=sh exit_status=5" in caplog.text


def test_command_that_died_idle_is_restarted_and_what_it_left_unread_is_counted(context, tmp_path, caplog):
    flag = tmp_path / "second"
    out = tmp_path / "out"
    script = f"if [ -e {flag} ]; then cat > {out}; else touch {flag}; kill -9 $$; fi"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    handler = Exec(context, command=["sh", "-c", f"[ -e {flag} ] || cat {gate}; {script}"])
    handler.on_trades(batch(range(3)))
    gate.write_bytes(b"")  # now it may die
    until(lambda: handler.on_tick(0.0) or starts(context) == 2, "the restart")
    assert lost(context) == len(lines(range(3)))
    assert "signal=9" in caplog.text
    assert f"unread={len(lines(range(3)))}" in caplog.text
    handler.on_trades(batch([7]))
    handler.close()
    assert out.read_bytes() == lines([7])


def test_restarts_slow_down(context):
    handler = Exec(context, command=["false"])
    began = time.monotonic()
    until(lambda: handler.on_tick(0.0) or starts(context) == 3, "two restarts")
    assert time.monotonic() - began >= 0.25 + 0.5
    handler.close()


def test_worker_is_kept_alive_while_a_command_takes_nothing(tmp_path, out):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    calls = []

    def keep_alive():
        calls.append(1)
        if len(calls) == 3:
            gate.write_bytes(b"")  # now the command goes on
        return False

    context = Context(shard=0, shards=1, keep_alive=keep_alive)
    handler = Exec(context, command=["sh", "-c", f"cat {gate}; cat > {out}"])
    big = batch(range(100_000))
    handler.on_trades(big)
    assert len(calls) >= 3
    handler.close()
    assert out.read_bytes() == big.raw


def test_records_that_a_stuck_command_never_took_are_counted_when_the_worker_stops(caplog):
    context = Context(shard=0, shards=1, keep_alive=lambda: True)
    handler = Exec(context, command=["sleep", "1000"], stop_timeout=0.3)
    big = batch(range(100_000))
    handler.on_trades(big)
    handler.close()
    assert lost(context) == len(big.raw)
    assert "records not delivered" in caplog.text
    assert "sending=SIGTERM" in caplog.text
    assert "signal=15" in caplog.text


def test_command_that_ignores_sigterm_is_killed(context, caplog, out):
    handler = Exec(
        context, command=["sh", "-c", f"trap '' TERM; touch {out}; while :; do sleep 60; done"], stop_timeout=0
    )
    until(out.exists, "the command to be ready")
    handler.close()
    assert "sending=SIGKILL" in caplog.text
    assert "signal=9" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": "jq ."}, "must be a list"),
        ({"command": []}, "must be a list"),
        ({"command": ["cat", 1]}, "must be a list"),
        ({"command": ["no-such-program-here"]}, "there is no program 'no-such-program-here'"),
        ({"command": ["cat"], "gaps": 1}, "must be true or false"),
        ({"command": ["cat"], "stop_timeout": -1}, "must be a number of seconds"),
    ],
)
def test_bad_option_is_named(context, options, message):
    with pytest.raises(ValueError, match=message):
        Exec(context, **options)


def test_worker_with_a_command_hands_over_everything_before_it_stops(tmp_path):
    bench = Bench(tmp_path)
    try:
        out = tmp_path / "out"
        bench.configure(f"command = ['sh', '-c', 'cat > {out}']", handler="tradebal.handlers:Exec")
        balancer = bench.balancer()
        worker = bench.worker()
        worker.says("opened: shard=0")
        balancer.write(lines(range(50_000)))
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0
        assert out.read_bytes() == lines(range(50_000))
        assert bench.figure("tradebal_exec_lost_bytes_total", shard="0") == 0
        assert bench.figure("tradebal_exec_starts_total", shard="0") == 1
    finally:
        bench.close()
