"""`tradebal top`: what a running system does, from its metrics files alone."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from collections import deque

import pytest
from rich.console import Console

from tests.system import System
from tests.test_system import Numbered, provider
from tradebal.errors import UserError
from tradebal.monitoring import figures, publish, top
from tradebal.monitoring.figures import Figures, Rates, ShardFigures, quantile

LARGE = Figures(
    at=1e9,
    connected=True,
    routed=123_456_789_012,
    received_bytes=10**13,
    rejects=123_456,
    highest=12_345_678.9,
    shards=(ShardFigures(10**10, 1_234_567_890, 999 << 20, 1 << 30, 1023 << 20, 123_456, 86_400.0, 12_345),) * 7,
    version="10.10.10",
    router="native",
    tls="user",
    state="live",
    live_since=1e9 - 86_400,
    last_data=1e9 - 0.25,
    disconnects=1234,
    gap_seconds=86_400,
    last=12_345_678.9,
    highest_minute=12_345_678.9,
    lowest_minute=12_345_678.9,
    top=dict.fromkeys([f"O:SPY25121{number}C00650000" for number in range(20)], 123_456),
)
FAST = Rates(12_345_678.9, (1_234_567.8,) * 7, 0.0123, 123.4)


def shown(now, rates=FAST, height=24, history=top._HISTORY, clock=1e9):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(top.draw(now, rates, deque([1.0] * history), height, clock))
    return console.export_text()


def run(*arguments):
    command = [sys.executable, "-m", "tradebal", "top", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_picture_of_a_running_system_and_its_json_tell_the_same(tmp_path):
    with provider(Numbered(20_000)) as serving, System(tmp_path, serving.url) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 20_000)
        system.wait_for("tradebal_top_symbol_trades", 19_900)
        picture = run("--config", system.config, "--once")
        assert picture.returncode == 0, picture.stderr
        assert "routed 20,000   handled 20,000" in picture.stdout
        assert "live for 0:" in picture.stdout
        assert "lost 0" in picture.stdout
        assert "MSFT" in picture.stdout
        assert "\x1b" not in picture.stdout
        assert max(map(len, picture.stdout.splitlines())) <= 80
        answer = run("--directory", system.run / "metrics", "--once", "--json")
        found = json.loads(answer.stdout)
        assert (found["routed"], found["handled"], found["connected"], found["state"]) == (20_000, 20_000, True, "live")
        assert [shard["shard"] for shard in found["shards"]] == [0, 1]
        assert sum(shard["routed"] for shard in found["shards"]) == 20_000
        assert all(shard["up"] for shard in found["shards"])
        assert sum(found["top"].values()) == pytest.approx(20_000, rel=0.01)
        system.stop_all()


def test_nothing_published_is_a_clear_error_that_names_the_place(tmp_path):
    done = run("--directory", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"tradebal: error: no figures in {tmp_path}\ntradebal: hint: ")
    with pytest.raises(UserError):
        next(top.moments(tmp_path / "missing"))


def test_large_figures_fit_80_columns_and_a_terminals_height():
    text = shown(LARGE)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert text.count("…") == 1  # the symbols may be cut, nothing else
    for part in (
        "1,234,567,890",
        "live for 24:00:00",
        "12 ms",
        "2:03",
        "250 ms ago",
        "1023 MiB",
        "123k",
        "98%",
        "24:00:00",
    ):
        assert part in text, part


def test_of_many_shards_those_in_trouble_and_the_busiest_are_shown():
    calm = ShardFigures(10, 10, 0, 1 << 20)
    shards = [calm] * 256
    shards[17] = dataclasses.replace(calm, dropped=1)
    shards[99] = dataclasses.replace(calm, up=False)
    text = shown(dataclasses.replace(LARGE, shards=tuple(shards)), Rates(1.0, tuple(map(float, range(256)))))
    numbers = [
        line.split()[0]
        for line in text.partition("shard")[2].splitlines()
        if line.split() and line.split()[0].isdigit()
    ]
    assert len(text.splitlines()) <= 24
    assert {"17", "99", "255", "254"} <= set(numbers)
    assert numbers == sorted(numbers, key=int)
    assert "down" in text
    assert f"{256 - len(numbers)} more" in text


def test_a_balancer_that_is_gone_or_not_connected_is_said_first():
    assert "balancer is down (last heard of 1:40 ago)" in shown(dataclasses.replace(LARGE, up=False), clock=1e9 + 100)
    assert "not connected: login" in shown(dataclasses.replace(LARGE, connected=False, state="login"))
    assert "no data yet" in shown(dataclasses.replace(LARGE, last_data=0.0))
    assert "lag unknown" in shown(LARGE, Rates(0.0, (0.0,) * 7))


def test_figures_of_a_unit_that_has_stopped_are_marked(tmp_path):
    (tmp_path / "balancer.prom").write_text('tradebal_shard_trades_total{shard="0"} 5\ntradebal_trades_total 5\n')
    (tmp_path / "worker-0.prom").write_text('tradebal_worker_trades_total{shard="0"} 4\n')
    now = figures.read(tmp_path)
    assert (now.up, now.shards[0].up, now.shards[0].handled) == (True, True, 4)
    long_ago = time.time() - publish.STALE_AFTER - 5
    os.utime(tmp_path / "worker-0.prom", (long_ago, long_ago))
    assert not figures.read(tmp_path).shards[0].up
    os.utime(tmp_path / "balancer.prom", (long_ago, long_ago))
    assert not figures.read(tmp_path).up
    both = top.moments(tmp_path)
    next(both)
    (tmp_path / "balancer.prom").unlink()
    assert next(both)[0].up is False


@pytest.mark.parametrize(
    ("fraction", "counts", "expected"),
    [
        (0.5, [], None),
        (0.5, [(1.0, 0), (float("inf"), 0)], None),
        (0.5, [(1.0, 10), (2.0, 10), (float("inf"), 10)], 0.5),
        (0.99, [(1.0, 0), (3.0, 100), (float("inf"), 100)], 2.98),
        (0.99, [(1.0, 50), (3.0, 50), (float("inf"), 100)], 3.0),
    ],
)
def test_quantiles_are_prometheus_ones(fraction, counts, expected):
    assert quantile(fraction, counts) == (expected if expected is None else pytest.approx(expected))
