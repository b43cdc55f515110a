"""The shard of a symbol never changes: a worker's state, and a move from the founding system, rest on it."""

import itertools
import random

import pytest

from tests.frames import text
from tests.routing import STOCKS, drive, feed, process_all
from tradebal.config import parse
from tradebal.errors import UserError
from tradebal.router.interface import MAX_PINS, MAX_PINS_SIZE
from tradebal.router.symbols import fnv1a64, shard_of

# From a C program that multiplies by shifts and additions, which shares nothing with symbols.py.
SHARDS_OF_8 = {
    "AAPL": 3,
    "SPY": 1,
    "MSFT": 7,
    "TSLA": 2,
    "QQQ": 1,
    "NVDA": 5,
    "BRK.B": 0,
    "X:BTC-USD": 2,
    "O:SPY251219C00650000": 3,
    "BTC/USD": 4,
    "Müller": 3,
}
SHARDS_OF_1024 = {"AAPL": 907, "SPY": 537, "MSFT": 431, "QQQ": 25, "BRK.B": 120, "Müller": 899}


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_the_hash_is_the_published_fnv_1a(data, value):
    assert fnv1a64(data) == value


@pytest.mark.parametrize(("shards", "known"), [(8, SHARDS_OF_8), (1024, SHARDS_OF_1024)])
def test_symbols_have_the_founding_systems_shards(shards, known):
    assert {symbol: shard_of(symbol.encode(), shards) for symbol in known} == known


@pytest.mark.parametrize(("shards", "known"), [(8, SHARDS_OF_8), (1024, SHARDS_OF_1024)])
def test_the_router_uses_the_same_shards(make, shards, known):
    for symbol, shard in known.items():
        outcome = drive(make(shards, STOCKS), [text(b'{"ev":"T","sym":"%s"}' % symbol.encode())])
        assert [number for number, data in enumerate(outcome.shards) if data] == [shard]


def test_a_symbol_written_with_escapes_has_the_same_shard(make):
    plain = drive(make(8, STOCKS), [text('{"ev":"T","sym":"Müller/😀"}'.encode())])
    escaped = drive(make(8, STOCKS), [text(rb'{"ev":"T","sym":"\u004d\u00fcll\u0065r\/\ud83d\uDE00"}')])
    assert [bool(data) for data in plain.shards] == [bool(data) for data in escaped.shards]


def sorted_by_reference(symbols, shards):
    trades = [[] for _ in range(shards)]
    for symbol in symbols:
        trades[shard_of(symbol, shards)].append(b'{"ev":"T","sym":"%s"}' % symbol)
    return trades


def messages(symbols):
    for first in range(0, len(symbols), 500):
        some = (b'{"ev":"T","sym":"%s"}' % symbol for symbol in symbols[first : first + 500])
        yield text(b"[" + b",".join(some) + b"]")


def test_a_symbol_keeps_its_shard_however_many_others_come_between(make):
    rng = random.Random(1)
    symbols = [b"%X" % number for number in range(20_000)] * 2
    rng.shuffle(symbols)
    assert drive(make(64, STOCKS), messages(symbols)).trades() == sorted_by_reference(symbols, 64)


def test_symbols_that_are_nearly_the_same_are_told_apart(make):
    symbols = [b"A".join(parts) for size in range(1, 10) for parts in itertools.product((b"", b"\0"), repeat=size)]
    symbols = [symbol for symbol in symbols if symbol] * 2
    assert drive(make(1024, STOCKS), messages(symbols)).trades() == sorted_by_reference(symbols, 1024)


def test_pinned_symbols_go_where_their_pin_says_and_no_others(make):
    router = make(8, STOCKS, pins={b"AAPL": 6, "Müller".encode(): 0, b"A": 7})
    symbols = ["AAPL", r"AA\u0050L", "Müller", "A", "SPY"]
    outcome = drive(router, [text(b'[{"ev":"T","sym":"%s"}]' % symbol.encode()) for symbol in symbols])
    assert outcome.trades()[6] == [b'{"ev":"T","sym":"AAPL"}', rb'{"ev":"T","sym":"AA\u0050L"}']
    assert outcome.trades()[0] == ['{"ev":"T","sym":"Müller"}'.encode()]
    assert outcome.trades()[7] == [b'{"ev":"T","sym":"A"}']
    assert b'{"ev":"T","sym":"SPY"}' in outcome.trades()[1]


def test_pins_can_be_changed_between_any_two_trades_and_what_is_staged_stays_where_it_is(make):
    router = make(8, STOCKS, pins={b"AAPL": 6, b"SPY": 5})
    message = text(b'[{"ev":"T","sym":"AAPL"},{"ev":"T","sym":"SPY"},{"ev":"T","sym":"MSFT"}]')
    aapl, spy, msft = (b'{"ev":"T","sym":"%s"}\n' % symbol for symbol in (b"AAPL", b"SPY", b"MSFT"))
    for pins in ({b"AAPL": 2, b"MSFT": 6}, {}):
        feed(router, message)
        process_all(router)
        router.set_pins(pins)
    feed(router, message)
    process_all(router)
    assert [bytes(router.pending(shard)) for shard in range(8)] == [
        b"", spy + spy, aapl, aapl, b"", spy, aapl + msft, msft + msft,
    ]  # fmt: skip


def test_pins_that_are_refused_change_nothing(make):
    router = make(2, STOCKS, pins={b"AAPL": 0})
    too_many = {b"%d" % number: 1 for number in range(MAX_PINS + 1)}
    for pins in ({b"AAPL": 2}, {b"AAPL": -1}, too_many, {b"A" * (MAX_PINS_SIZE + 1): 1}):
        with pytest.raises(ValueError, match="pinned"):
            router.set_pins(pins)
        with pytest.raises(ValueError, match="pinned"):
            make(2, STOCKS, pins=pins)
    outcome = drive(router, [text(b'{"ev":"T","sym":"AAPL"}')])
    assert [bool(data) for data in outcome.shards] == [True, False]


def test_as_many_pins_as_there_may_be_are_all_kept(make):
    symbols = [(b"%d" % number).ljust(MAX_PINS_SIZE // MAX_PINS, b".") for number in range(MAX_PINS)]
    trades = [b'{"ev":"T","sym":"%s"}' % symbol for symbol in symbols]
    router = make(4, STOCKS)
    router.set_pins({symbol: number % 4 for number, symbol in enumerate(symbols)})
    outcome = drive(router, [text(b"[" + b",".join(trades) + b"]")])
    assert outcome.trades() == [trades[shard::4] for shard in range(4)]


def test_the_configuration_takes_as_many_pins_as_a_router_and_no_more():
    def read(count, size):
        return parse(
            "[shards]\npin = {{ {} }}".format(", ".join(f"{n:0{size}} = 0" for n in range(count))).encode(), "-"
        )

    size = MAX_PINS_SIZE // MAX_PINS
    assert len(read(MAX_PINS, size).shards.pin) == MAX_PINS
    for count, longer in ((MAX_PINS + 1, size - 1), (MAX_PINS, size + 1)):
        with pytest.raises(UserError, match=f"must be {MAX_PINS} symbols at most, of {MAX_PINS_SIZE} bytes in all"):
            read(count, longer)
