"""A trade's own time, as the providers write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebal.stream.trade_time import time_ns

EVERYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (1606487400, 1606487400_000000000),
        (1606487400123, 1606487400_123000000),  # massive: milliseconds
        (1606487400123456, 1606487400_123456000),
        (1606487400123456789, 1606487400_123456789),
        ("1606487400123", 1606487400_123000000),
        ("2020-11-27T14:30:00.123456789Z", 1606487400_123456000),  # alpaca
        ("2020-11-27T14:30:00.123456Z", 1606487400_123456000),  # coinbase, kraken
        ("2020-11-27T09:30:00-05:00", 1606487400_000000000),
        ("2020-11-27T14:30:00", 1606487400_000000000),
    ],
)
def test_each_usual_form_is_understood(written, expected):
    assert time_ns(written) == expected


def test_a_float_of_seconds_is_exact_to_the_microsecond():
    assert abs(time_ns(1606487400.123456) - 1606487400_123456000) < 1000


@pytest.mark.parametrize("other", [None, True, "", "soon", [], {}, 0, -5, 10**30, float("nan"), float("inf"), "9" * 30])
def test_what_is_no_time_is_none(other):
    assert time_ns(other) is None


@given(EVERYTHING)
def test_no_json_value_makes_it_fail(value):
    assert time_ns(value) is None or time_ns(value) > -(1 << 63)
