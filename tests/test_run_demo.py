"""The demo shows the product at work, and its exit status is a proof."""

import dataclasses
import io
import re
import subprocess
import sys
from collections import deque

import pytest
from rich.console import Console

from tradebal.monitoring.figures import Figures, Rates, ShardFigures, rates
from tradebal.monitoring.view import _HISTORY, PictureView, PlainView, draw, size
from tradebal.run.demo import Outcome

GOOD = Outcome(
    sent=1000,
    received_bytes=117_000,
    routed=1000,
    handled=1000,
    disordered=0,
    highest=1e6,
    latencies=(0.0005, 0.0027, 0.031),
    seconds=22.0,
)

FIGURES = Figures(
    at=100.0,
    connected=True,
    routed=123_456_789,
    received_bytes=10**10,
    rejects=0,
    highest=12_345_678.9,
    shards=tuple(ShardFigures(12_345_678, 12_345_678, 1_000_000, 1_048_576, 1 << 30, 0) for _ in range(7)),
)


def demo(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tradebal", "demo", *arguments], capture_output=True, text=True, timeout=100
    )


def test_it_plays_the_open_and_counts_every_trade(tmp_path):
    done = demo("--duration", "4", "--workers", "2", "--picture", str(tmp_path / "demo.svg"))
    assert done.returncode == 0, done.stdout + done.stderr
    counted = {name: re.search(rf"^{name}: +([\d,]+)", done.stdout, re.M)[1] for name in ("sent", "routed", "handled")}
    assert len(set(counted.values())) == 1
    assert int(counted["sent"].replace(",", "")) > 100_000
    assert re.search(r"^lost: +0$", done.stdout, re.M)
    assert re.search(r"p50 [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms", done.stdout)
    assert "\x1b" not in done.stdout
    assert "Every trade reached its worker" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")


def test_a_lost_or_a_disordered_trade_is_no_success():
    assert GOOD.good
    assert not dataclasses.replace(GOOD, handled=999).good
    assert dataclasses.replace(GOOD, handled=999).lost == 1
    assert not dataclasses.replace(GOOD, disordered=1).good
    assert not dataclasses.replace(GOOD, sent=0, handled=0).good


def test_the_summary_has_a_line_for_each_figure():
    assert "provider to handler:   p50 0.50 ms, p99 2.70 ms, max 31.00 ms" in GOOD.summary()
    assert len(GOOD.summary().splitlines()) == 8


def test_the_live_view_fits_80_columns_with_large_figures():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(draw("tradebal demo", 9999.9, FIGURES, Rates(5e6, (7e5,) * 7), deque([1.0] * _HISTORY)))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "live" in text
    assert "123,456,789" in text


def test_plain_lines_come_once_a_second(capsys):
    view = PlainView()
    for tenth in range(25):
        view.show(tenth / 10, FIGURES, Rates(1.0, (1.0,) * 7))
    view.close()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_picture_shows_the_busiest_moment(tmp_path):
    view = PictureView("demo", PlainView())
    for rate in (10.0, 800_000.0, 20.0):
        view.show(rate, FIGURES, Rates(rate, (rate / 7,) * 7))
    view.save(tmp_path / "p.svg", "make demo", "lost: 0")
    assert "800,000" in (tmp_path / "p.svg").read_text()


def test_rates_are_differences_over_the_time_between():
    later = dataclasses.replace(
        FIGURES,
        at=102.0,
        routed=FIGURES.routed + 1000,
        shards=tuple(dataclasses.replace(shard, routed=shard.routed + 100) for shard in FIGURES.shards),
    )
    assert rates(FIGURES, later) == Rates(500.0, (50.0,) * 7)
    assert rates(None, later) == Rates(0.0, (0.0,) * 7)
    restarted = dataclasses.replace(later, routed=0)
    assert rates(FIGURES, restarted).routed == 0.0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (312 << 10, "312 KiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes_read_as_people_write_them(count, text):
    assert size(count) == text
