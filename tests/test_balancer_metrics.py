"""What the balancer notes for its metrics: bounded, cheap, and never more than is known."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebal.balancer.samples import TOP, Samples
from tradebal.balancer.unread import UnreadAge
from tradebal.balancer.watch import Extremes, Watch
from tradebal.monitoring.histogram import Histogram
from tradebal.router import pure, scan
from tradebal.router.interface import BATCH_TRADES, REJECT_REASONS, Batch, Event, EventKind, Sample

SECOND = 1_000_000_000


def buckets(family):
    return {sample.labels.get("le", sample.name): sample.value for sample in family.samples}


def test_a_histogram_counts_by_inclusive_upper_bounds():
    histogram = Histogram(1, 2.5, 1e6)
    for value in (0.5, 1, 2, 2.5, 3, 1e6, 1e9):
        histogram.observe(value)
    found = buckets(histogram.family("x", "X."))
    assert found == {
        "1.0": 2,
        "2.5": 4,
        "1e+06": 6,
        "+Inf": 7,
        "x_count": 7,
        "x_sum": 0.5 + 1 + 2 + 2.5 + 3 + 1e6 + 1e9,
    }
    assert histogram.count == 7


def test_a_histogram_has_all_its_buckets_before_anything_was_observed():
    assert set(buckets(Histogram(1).family("x", "X.")).values()) == {0}


def batch(second, rate, frames=64, reads=4):
    return Batch(second * SECOND, int(BATCH_TRADES * SECOND / rate), reads, frames, 900_000, 0, 0, 0)


def test_batches_fill_the_histograms():
    watch = Watch()
    watch.add([batch(1, 800_000), batch(2, 3_000), batch(3, 60_000_000, frames=0, reads=0)])
    rates = buckets(watch.rate.family("rate", "Rate."))
    assert (rates["1000.0"], rates["5000.0"], rates["500000.0"]) == (0, 1, 1)
    assert (rates["1e+06"], rates["5e+07"], rates["+Inf"]) == (2, 2, 3)
    assert buckets(watch.reads.family("reads", "Reads."))["0.0"] == 1
    assert buckets(watch.trades_per_frame.family("t", "T."))["200.0"] == 2
    assert buckets(watch.trades_per_frame.family("t", "T."))["10000.0"] == 3


def test_highest_and_lowest_of_the_last_minute_forget_what_is_older():
    extremes = Extremes()
    assert (extremes.lowest(100), extremes.highest(100)) == (0, 0)
    extremes.add(100, 5.0)
    extremes.add(100, 9.0)
    extremes.add(130, 7.0)
    assert (extremes.lowest(159), extremes.highest(159)) == (5, 9)
    assert (extremes.lowest(160), extremes.highest(160)) == (7, 7)
    assert (extremes.lowest(190), extremes.highest(190)) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e6, 1e6)), max_size=200))
def test_highest_and_lowest_are_those_of_the_minute_for_any_course(steps):
    extremes, seen, second = Extremes(), [], 1000
    for later, value in steps:
        second += later
        extremes.add(second, value)
        seen.append((second, value))
        recent = [value for at, value in seen if at > second - 60]
        assert (extremes.lowest(second), extremes.highest(second)) == (min(recent), max(recent))


def test_events_are_counted_by_kind_and_rejects_by_reason():
    watch = Watch()
    watch.event(Event(EventKind.PING, b""))
    watch.event(Event(EventKind.REJECT, b"", reason="no usable symbol"))
    assert watch.kinds[EventKind.PING] == 1
    assert watch.kinds[EventKind.REJECT] == 1
    assert {reason: count for reason, count in watch.rejects.items() if count} == {"no usable symbol": 1}


def test_every_reason_of_a_reject_has_its_series():
    said = {getattr(scan, name) for name in vars(scan) if name.isupper() and isinstance(getattr(scan, name), str)}
    assert said | {pure.TOO_LONG, pure.RAW_NEWLINE} == set(REJECT_REASONS)


def test_last_trade_is_only_moved_by_trades():
    watch = Watch()
    watch.received(5, 0)
    assert (watch.last_data_ns, watch.last_trade_ns) == (5, 0)
    watch.received(7, 3)
    watch.received(9, 3)
    assert (watch.last_data_ns, watch.last_trade_ns) == (9, 7)


def test_a_shard_that_is_read_in_time_has_no_unread_age():
    age = UnreadAge()
    assert age.look(0.0, 0, 0) == 0
    assert age.look(1.0, 1000, 100) == 0  # these may have come just now
    assert age.look(2.0, 2000, 100) == 0


def test_a_shard_that_nobody_reads_ages_from_when_its_first_bytes_were_seen():
    age = UnreadAge()
    assert age.look(10.0, 500, 500) == 0
    assert age.look(11.0, 900, 900) == 1
    assert age.look(40.0, 900, 900) == 30
    assert age.look(41.0, 1000, 400) == 30  # the first 600 were read; the next ones were seen at 11
    assert age.look(42.0, 1000, 0) == 0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=400))
def test_the_unread_age_is_never_too_high_and_off_by_a_fraction_at_most(steps):
    age, arrivals, length, read = UnreadAge(), [], 0, 0
    for now, (come, gone) in enumerate(steps):
        length += come
        arrivals.append(length)
        read = min(length, read + gone)
        oldest = next((at for at, until in enumerate(arrivals) if until > read), now)
        told = age.look(float(now), length, length - read)
        assert told <= now - oldest
        assert told >= (now - oldest) * 0.9 - 1


def sample(second, *symbols, lag=0.0):
    trades = b",".join(
        b'{"ev":"T","sym":"%s","t":%d}' % (symbol.encode(), round((second - lag) * 1000)) for symbol in symbols
    )
    return Sample(second * SECOND, 0, 0, trades)


def test_lag_is_the_first_trades_and_below_none_counts_as_none():
    samples = Samples(b"sym", "t")
    samples.add(sample(1_600_000_000, "A", "B", lag=0.25), 2)
    samples.add(sample(1_600_000_001, "A", lag=-0.5), 3)
    found = buckets(samples.lag.family("lag", "Lag."))
    assert (found["0.001"], found["0.1"], found["0.25"], found["lag_count"]) == (1, 1, 2, 2)
    assert found["lag_sum"] == pytest.approx(0.25)
    assert samples.lags.lowest(1_600_000_001) == pytest.approx(-0.5)


def test_a_sample_stands_for_all_trades_since_the_one_before():
    samples = Samples(b"sym", "t")
    samples.add(sample(1_600_000_000, "A", "B"), 1000)
    samples.add(sample(1_600_000_001, "A", "A", "A", "B"), 1400)
    assert samples.top(1_600_000_001) == [("A", 800), ("B", 600)]
    assert samples.top(1_600_000_059) == [("A", 800), ("B", 600)]
    assert samples.top(1_600_000_075) == []


def test_top_symbols_are_few_and_none_is_longer_than_a_label_should_be():
    samples = Samples(b"sym", "")
    for number in range(3000):
        samples.add(sample(1_600_000_000 + number // 100, "X" * 500, f"S{number}", "SPY"), 3 * number)
    top = samples.top(1_600_000_029)
    assert len(top) == TOP
    assert {symbol for symbol, _ in top[:2]} == {"X" * 64, "SPY"}
    assert samples.lag.count == 0
    assert sum(len(counts) for _, counts in samples._slots) < 12 * 500 + 600


def test_a_sample_that_cannot_be_decoded_is_left_out():
    samples = Samples(b"sym", "t")
    samples.add(Sample(time.time_ns(), 0, 0, b'{"sym":"A","t":1e}'), 1)
    samples.add(Sample(time.time_ns(), 0, 0, b'{"sym":17,"t":"soon"}'), 1)
    assert samples.top(int(time.time())) == []
    assert samples.lag.count == 0
