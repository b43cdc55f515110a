"""Count: the handler that ships as the default."""

import logging

import pytest

from tests.waiting import until
from tests.workers import trade
from tradebal.handlers import Batch, Context, Count


@pytest.fixture
def context(caplog):
    caplog.set_level(logging.INFO)
    return Context(shard=3, shards=8)


def batch(count):
    return Batch(b"".join(trade(number) + b"\n" for number in range(count)), "ndjson", 1)


def test_trades_are_counted_and_the_total_is_logged_at_the_end(context, caplog):
    handler = Count(context)
    handler.on_trades(batch(5))
    handler.on_tick(0.0)
    handler.on_trades(batch(3))
    handler.close()
    [line] = caplog.messages
    assert line.startswith("counted in all: shard=3 trades=8 rate=")


def test_a_line_comes_at_each_interval(context, caplog):
    handler = Count(context, interval=0.001)
    handler.on_trades(batch(5))
    until(lambda: handler.on_tick(0.0) or len(caplog.messages) == 2, "two lines")
    assert all(line.startswith("counted: shard=3 trades=5 rate=") for line in caplog.messages)
    handler.close()


@pytest.mark.parametrize("interval", [-1, "10", None])
def test_bad_interval_is_named(context, interval):
    with pytest.raises(ValueError, match=r"interval = .*must be a number of seconds"):
        Count(context, interval=interval)
