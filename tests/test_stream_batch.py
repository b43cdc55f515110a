"""What a handler can ask of a batch."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.stream import framing
from tradebal.stream.batch import Batch, segments
from tradebal.stream.gap import REASONS, Gap

FRAMINGS = ("ndjson", "length32")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
trades = st.dictionaries(st.text(max_size=4), values, max_size=5)
# Balanced, as the router hands on, and yet no JSON object.
broken = st.sampled_from([b"{]}", b"{a}", b'{"a":01}', b'{"a":"\xff"}', b"[1]", b"7", b'{"a":1},{"b":2}'])
gaps = st.builds(Gap, st.sampled_from(REASONS), st.integers(0, 2**62), st.integers(0, 2**62), st.none())


def frame(records, kind):
    return b"".join(framing.encode(record, kind) for record in records)


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=80, deadline=None)
@given(st.lists(trades.map(orjson.dumps) | broken, min_size=1, max_size=10))
def test_trades_are_what_orjson_makes_of_each_line(kind, records):
    batch = Batch(frame(records, kind), kind, 1)
    expected = []
    for record in records:
        try:
            value = orjson.loads(record)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            expected.append(value)
    assert batch.lines() == records
    assert len(batch) == len(records)
    assert batch.trades() == expected
    assert batch.undecodable == len(records) - len(expected)


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=80, deadline=None)
@given(st.lists(trades.map(orjson.dumps) | gaps, max_size=12))
def test_gaps_are_taken_out_in_their_places(kind, stream):
    records = [item.to_record() if isinstance(item, Gap) else item for item in stream]
    seen = []
    for segment, _ in segments(frame(records, kind), kind, 5):
        if isinstance(segment, Gap):
            seen.append(segment)
        else:
            assert segment.received_ns == 5
            assert segment.framing == kind
            assert segment.raw == frame(segment.lines(), kind)
            assert segment.lines()
            seen += segment.lines()
    assert seen == stream


def found(raw, kind="ndjson"):
    return [segment if isinstance(segment, Gap) else segment.lines() for segment, _ in segments(raw, kind, 0)]


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=80, deadline=None)
@given(st.lists(trades.map(orjson.dumps) | broken | gaps, max_size=12))
def test_what_stands_behind_a_segment_gives_the_segments_that_follow_it(kind, stream):
    raw = frame([item.to_record() if isinstance(item, Gap) else item for item in stream], kind)
    whole = found(raw, kind)
    done = 0
    for number, (_, size) in enumerate(segments(raw, kind, 0), start=1):
        done += size
        assert found(raw[done:], kind) == whole[number:]
    assert done == len(raw)


def test_trade_that_speaks_of_gaps_is_none():
    record = b'{"sym":"{\\"tradebal\\":\\"gap\\"","note":"trade","x":{"tradebal":"gap"}}'
    [(batch, _)] = segments(record + b"\n", "ndjson", 1)
    assert batch.lines() == [record]


def test_empty_lines_make_no_batch():
    assert segments(b"\n\n", "ndjson", 1) == []


def test_a_record_torn_by_a_killed_balancer_is_left_out_and_the_gap_told():
    gap = Gap("restart", 1, 2, None)
    raw = b'{"q":1}\n{"q":2,"s\n' + gap.to_record() + b'\n{"q":3}\n'
    assert found(raw) == [[b'{"q":1}'], gap, [b'{"q":3}']]


def test_a_whole_record_before_a_restart_gap_stays():
    gap = Gap("restart", 1, 2, None)
    assert found(b'{"q":1}\n\n' + gap.to_record() + b"\n") == [[b'{"q":1}'], gap]
