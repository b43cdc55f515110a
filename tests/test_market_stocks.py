import collections
import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.market import sessions
from tradebal.market.sessions import trades_per_frame
from tradebal.market.stocks import StockPlayback
from tradebal.market.symbols import COUNT, universe
from tradebal.market.trades import AGES_MS, FACILITIES, OFF_EXCHANGE

NOW = 1_732_545_000_000


def frames(data: bytes) -> list[bytes]:
    payloads = []
    while data:
        assert data[0] == 0x81, "one text message a frame"
        length, header = data[1], 2
        if length == 126:
            length, header = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, header = int.from_bytes(data[2:10], "big"), 10
        payloads.append(data[header : header + length])
        assert len(payloads[-1]) == length
        data = data[header + length :]
    return payloads


def trades_of(playback: StockPlayback, wanted=None) -> list[dict]:
    trades = []
    for chunk in playback.chunks():
        block = chunk.render(wanted, NOW)
        decoded = [trade for payload in frames(block.data) for trade in orjson.loads(payload)]
        assert block.trades == len(decoded)
        assert block.frames == len(frames(block.data))
        if decoded:
            assert block.first == decoded[0]["q"]
        trades += decoded
    return trades


@pytest.fixture(scope="module")
def many() -> list[dict]:
    return trades_of(StockPlayback(sessions.full_speed(), seed=1, trades=200_000))


def test_universe_has_a_real_days_number_of_stocks_each_with_its_own_ticker():
    tickers = [symbol.ticker for symbol in universe()]
    assert len(tickers) == len(set(tickers)) == COUNT >= 6000
    assert {"SPY", "NVDA", "TSLA", "AAPL", "BRK.B"} < set(tickers)
    assert sum(symbol.share for symbol in universe()) == pytest.approx(1)
    assert all(a.share >= b.share for a, b in itertools.pairwise(universe()))


def test_busiest_stocks_have_their_share_and_every_stock_trades(many):
    counts = collections.Counter(trade["sym"] for trade in many)
    top = [count / len(many) for _, count in counts.most_common(3)]
    assert top == pytest.approx([0.022, 0.011, 0.010], rel=0.05)
    assert 0.30 < sum(count for _, count in counts.most_common(100)) / len(many) < 0.40
    assert len(counts) == COUNT


def test_renewed_trades_keep_the_skew():
    counts = collections.Counter(trade["sym"] for trade in trades_of(StockPlayback(sessions.steady(20), bank=512)))
    assert counts["SPY"] / counts.total() == pytest.approx(0.022, abs=0.004)
    assert len(counts) > 4000


def test_dark_pool_odd_lot_fractional_and_late_prints_have_realistic_shares(many):
    def share(condition) -> float:
        return sum(map(condition, many)) / len(many)

    assert share(lambda trade: trade["x"] == OFF_EXCHANGE) == pytest.approx(0.36, abs=0.01)
    assert all((trade["x"] == OFF_EXCHANGE) == ("trfi" in trade) == ("trft" in trade) for trade in many)
    assert {trade["trfi"] for trade in many if "trfi" in trade} == set(FACILITIES)
    assert share(lambda trade: trade["s"] < 100) == pytest.approx(0.58, abs=0.05)
    assert share(lambda trade: "." in trade["ds"]) == pytest.approx(0.06, abs=0.02)
    assert share(lambda trade: "c" not in trade) == pytest.approx(0.22, abs=0.05)
    assert share(lambda trade: trade.get("c") == []) == pytest.approx(0.01, abs=0.008)
    assert share(lambda trade: round(trade["p"] * 100) != pytest.approx(trade["p"] * 100)) == pytest.approx(
        0.1, abs=0.03
    )
    late = [trade for trade in many if trade["t"] < NOW - 1000]
    assert 0.001 < len(late) / len(many) < 0.01
    assert {NOW - trade["t"] for trade in late} == set(AGES_MS[5:]), "some from before the session"
    assert len({trade["x"] for trade in many}) >= 15
    assert sum(len(orjson.dumps(trade)) for trade in many) / len(many) == pytest.approx(142, abs=8)


def test_field_order_varies_behind_the_symbol(many):
    orders = collections.Counter(tuple(trade)[:6] for trade in many)
    assert all(order[:2] == ("ev", "sym") for order in orders)
    assert len(orders) > 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.sampled_from([572, 9_000, 800_000]))
def test_every_trade_is_json_with_the_documented_fields(seed, rate):
    types = {
        "ev": str, "sym": str, "x": int, "i": str, "z": int, "p": (int, float), "s": int, "ds": str, "c": list,
        "t": int, "pt": int, "q": int, "trfi": int, "trft": int,
    }  # fmt: skip
    trades = trades_of(StockPlayback(sessions.steady(60, rate), seed=seed, trades=700, bank=300))
    assert [trade["q"] for trade in trades] == list(range(1, 701))
    for trade in trades:
        assert trade["ev"] == "T"
        assert set(trade) - {"c", "trfi", "trft"} == set(types) - {"c", "trfi", "trft"}
        assert all(isinstance(value, types[key]) for key, value in trade.items())
        assert trade["p"] > 0
        assert trade["s"] > 0
        assert trade["z"] in (1, 2, 3)
        assert trade["pt"] <= trade["t"] <= NOW
        assert trade["s"] == max(1, round(float(trade["ds"])))
        assert 33 not in trade.get("c", []), "a legacy condition"
        assert all(type(condition) is int for condition in trade.get("c", []))
    assert len({(trade["sym"], trade["x"], trade["i"]) for trade in trades}) == len(trades), "ids are unique"


def test_numbers_and_ids_go_on_when_the_bank_comes_round():
    trades = trades_of(StockPlayback(sessions.full_speed(), trades=5000, bank=300))
    assert [trade["q"] for trade in trades] == list(range(1, 5001))
    assert len({(trade["sym"], trade["x"], trade["i"]) for trade in trades}) == 5000


def test_a_stocks_price_moves_by_small_steps():
    prices = collections.defaultdict(list)
    for trade in trades_of(StockPlayback(sessions.steady(10), bank=4096)):
        prices[trade["sym"]].append(trade["p"])
    assert len(set(prices["SPY"])) > 20
    assert all(abs(b - a) < 0.01 * a for a, b in itertools.pairwise(prices["SPY"]))


def test_the_same_seed_is_the_same_market_and_another_is_another():
    def played(seed: int) -> list[tuple[float, bytes]]:
        playback = StockPlayback(sessions.burst(4, seed=seed), seed=seed, bank=1000)
        return [(chunk.at, chunk.render(None, NOW).data) for chunk in playback.chunks()]

    assert played(3) == played(3)
    assert played(3) != played(4)


def test_every_play_of_one_playback_is_the_same_even_side_by_side():
    playback = StockPlayback(sessions.steady(1), bank=1000)
    for one, other in zip(playback.chunks(), playback.chunks(), strict=True):
        assert one.render(None, NOW) == other.render(None, NOW)


def test_a_filter_leaves_exactly_the_wanted_trades():
    wanted = {"SPY", "AAPL", "BRK.B"}
    for session in (sessions.steady(3, 4000), sessions.steady(1, 60_000)):
        everything = trades_of(StockPlayback(session, bank=5000))
        assert trades_of(StockPlayback(session, bank=5000), wanted) == [t for t in everything if t["sym"] in wanted]
    assert trades_of(StockPlayback(sessions.steady(1), bank=500), frozenset()) == []


def test_repeat_goes_on_in_time_and_numbers():
    playback = StockPlayback(sessions.steady(0.5), trades=5000, repeat=True, bank=500)
    times = [chunk.at for chunk in playback.chunks()]
    assert times == sorted(times)
    assert 1.8 < times[-1] < 2.2
    assert [trade["q"] for trade in trades_of(playback)] == list(range(1, 5001))


def sizes(playback: StockPlayback) -> list[int]:
    return [
        len(orjson.loads(payload)) for chunk in playback.chunks() for payload in frames(chunk.render(None, NOW).data)
    ]


@pytest.mark.parametrize(("rate", "low", "high"), [(572, 1, 1.5), (2_300, 2, 3), (50_000, 13, 17), (800_000, 127, 128)])
def test_trades_per_frame_grow_with_the_rate(rate, low, high):
    found = sizes(StockPlayback(sessions.steady(20_000 / rate, rate), bank=2000))
    assert low <= sum(found) / len(found) <= high
    assert sum(found) == pytest.approx(20_000, rel=0.05)
    assert low <= trades_per_frame(rate) <= high


def test_full_speed_fills_every_frame():
    playback = StockPlayback(sessions.full_speed(), trades=128 * 40, bank=2000)
    assert not playback.paced
    assert set(sizes(playback)) == {128}


def by_second(session: sessions.Session, step: float = 0.1) -> list[float]:
    counts: collections.Counter[int] = collections.Counter()
    for chunk in StockPlayback(session, bank=256).chunks():
        counts[int(chunk.at / step)] += chunk.render(None, NOW).trades
    return [counts[number] / step for number in range(int(session.duration / step))]


@pytest.mark.parametrize("duration", [5, 12])
def test_the_open_climbs_from_572_to_its_peak_within_a_second_and_decays(duration):
    rates = by_second(sessions.market_open(duration, peak=100_000))
    assert sum(rates[:10]) / 10 == pytest.approx(572, rel=0.15)
    top = next(number for number, rate in enumerate(rates) if rate > 95_000)
    assert min(rates[: top - 10]) < 2000, "quiet a second earlier"
    assert sum(1 for rate in rates if rate > 95_000) >= 7
    assert rates[-1] < 0.06 * max(rates)


def test_the_open_takes_the_articles_steps():
    session = sessions.market_open()
    assert session.rate is not None
    rates = [session.rate(number / 100) for number in range(2000)]
    climbed = list(dict.fromkeys(rates[600:700]))
    assert climbed == [4_500, 33_000, 40_000, 53_000, 800_000]
    assert rates.count(800_000) == pytest.approx(150, abs=2)


def test_bursts_rise_from_the_middays_rate_to_theirs():
    rates = by_second(sessions.burst(15), step=0.05)
    assert sorted(rates)[len(rates) // 2] == pytest.approx(3_500, rel=0.2)
    assert max(rates) == pytest.approx(80_000, rel=0.1)
