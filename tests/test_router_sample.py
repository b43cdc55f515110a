"""Samples of the routed trades: what the figures on lag and on the busiest symbols are made from."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import native_maker
from tests.frames import text
from tests.routing import KRAKEN, STOCKS, drive
from tradebal.router.interface import SAMPLE_SIZE
from tradebal.router.pure import Router as PythonRouter
from tradebal.stream import framing
from tradebal.stream.framing import MAX_RECORD


def trade(number, symbol="AAPL", more=""):
    return f'{{"ev":"T","sym":"{symbol}","i":"{number}"{more}}}'.encode()


def array(trades):
    return text(b"[" + b",".join(trades) + b"]")


def test_there_is_no_sample_before_the_first_trade(make):
    router = make(2, STOCKS)
    assert router.sample() is None
    drive(router, [text(b'[{"ev":"status"}]')])
    assert router.sample() is None


def test_a_sample_is_the_first_trade_since_the_last_one_and_those_behind_it_in_its_message(make):
    router = make(2, STOCKS)
    trades = [trade(number) for number in range(9)]
    before = time.time_ns()
    drive(router, [array(trades[:3]), array(trades[3:5])])
    sample = router.sample()
    assert before <= sample.time_ns <= time.time_ns()
    assert sample.trades == b",".join(trades[:3])
    assert router.sample() is None
    drive(router, [array(trades[5:])])
    assert router.sample().trades == b",".join(trades[5:])


@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_a_sample_says_how_far_before_the_end_of_its_shards_stream_it_begins(make, kind):
    router = make(2, STOCKS, framing=kind, pins={b"A": 0, b"B": 1})
    drive(router, [array([trade(1, "A"), trade(2, "B"), trade(3, "A")])])
    router.sample()
    more = drive(router, [array([trade(4, "B"), trade(5, "A")]), array([trade(678, "B")])]).shards
    assert more[1] == framing.encode(trade(4, "B"), kind) + framing.encode(trade(678, "B"), kind)
    sample = router.sample()
    assert (sample.shard, sample.behind) == (1, len(more[1]))


def test_what_is_no_trade_is_in_no_sample(make):
    router = make(2, STOCKS)
    drive(router, [array([b'{"ev":"status"}', trade(1), b'{"ev":"T"}', b"17", trade(2), b'{"ev":"Q"}'])])
    assert router.sample().trades == trade(1) + b"," + trade(2)


def test_trades_of_an_envelope_are_sampled_by_themselves(make):
    router = make(2, KRAKEN)
    drive(router, [text(b'{"channel":"trade","data":[ {"symbol":"A","x":1} , {"symbol":"B"} ]}')])
    assert router.sample().trades == b'{"symbol":"A","x":1},{"symbol":"B"}'


def test_a_sample_ends_before_the_first_trade_that_does_not_fit(make):
    router = make(2, STOCKS)
    long = trade(2, more=f',"x":"{"x" * SAMPLE_SIZE}"')
    drive(router, [array([long, trade(1), long, trade(3)])])
    assert router.sample().trades == trade(1)
    exact = trade(4)
    fitting = trade(5, more=f',"x":"{"x" * (SAMPLE_SIZE - 1 - len(exact) - len(trade(5)) - 7)}"')
    drive(router, [array([exact, fitting, trade(6)])])
    assert router.sample().trades == exact + b"," + fitting
    assert len(exact + b"," + fitting) == SAMPLE_SIZE
    assert MAX_RECORD > SAMPLE_SIZE


VARIANTS = st.lists(
    st.one_of(
        st.builds(trade, st.integers(0, 9), st.sampled_from(["A", "BRK.B", "O:SPY251219C00650000", "é"])),
        st.sampled_from(
            [b'{"ev":"status"}', b'{"ev":"T"}', b'{ "sym":"X", "ev":"T" }', b'{"ev":"T","sym":"Y","z":[1]}']
        ),
        st.builds(lambda size: trade(0, more=f',"x":"{"x" * size}"'), st.integers(0, 5000)),
    ),
    min_size=1,
    max_size=40,
)


@given(messages=st.lists(st.tuples(VARIANTS, st.booleans()), max_size=5))
@pytest.mark.parametrize("kind", ["ndjson", "length32"])
def test_both_routers_give_the_same_samples(kind, messages):
    core, python = (maker(3, STOCKS, framing=kind) for maker in (native_maker(None), PythonRouter))
    for message, taken in messages:
        for router in (core, python):
            drive(router, [array(message)])
        if taken:
            ours, theirs = core.sample(), python.sample()
            assert (ours and ours[1:]) == (theirs and theirs[1:])
