"""Delays between tries: jittered over their whole range, never beyond the cap, reset only by healthy flow."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.upstream.backoff import Backoff

STEPS = st.lists(st.tuples(st.sampled_from(["next", "slow", "live", "lost"]), st.floats(0, 200)), max_size=60)


@given(STEPS, st.integers())
@settings(deadline=None, max_examples=100)
def test_delays_stay_within_their_bounds_whatever_happens(steps, seed):
    backoff = Backoff(rng=random.Random(seed))
    now = 0.0
    ceiling = 0.25
    live = None
    for step, seconds in steps:
        now += seconds
        if step == "next":
            assert 0 <= backoff.next() <= ceiling
            ceiling = min(30.0, 2 * ceiling)
        elif step == "slow":
            assert 30 <= backoff.slow() <= 60
        elif step == "live":
            backoff.live(now)
            live = now
        else:
            backoff.lost(now)
            if live is not None and now - live >= 60:
                ceiling = 0.25
            live = None


class Highest(random.Random):
    """Always draws the upper bound."""

    def uniform(self, a, b):
        return b


def test_ceiling_doubles_from_a_quarter_of_a_second_to_the_cap():
    backoff = Backoff(rng=Highest())
    assert [backoff.next() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.attempts == 9


def test_jitter_is_full():
    drawn = [Backoff(rng=random.Random(seed)).next() for seed in range(200)]
    assert min(drawn) < 0.02
    assert max(drawn) > 0.23
    assert 0.1 < sum(drawn) / len(drawn) < 0.15


def test_a_minute_of_flow_resets_and_less_does_not():
    backoff = Backoff(rng=Highest())
    for _ in range(5):
        backoff.next()
    backoff.live(100.0)
    backoff.lost(159.9)
    assert backoff.next() == 8
    backoff.live(200.0)
    backoff.lost(260.0)
    assert backoff.attempts == 0
    assert backoff.next() == 0.25


def test_loss_without_flow_resets_nothing_however_long_it_took():
    backoff = Backoff(rng=Highest())
    backoff.live(0.0)
    backoff.lost(10.0)
    backoff.next()
    backoff.lost(1000.0)
    assert backoff.next() == 0.5


def test_slow_retries_leave_the_ceiling_alone():
    backoff = Backoff(rng=Highest())
    assert [backoff.slow(), backoff.next(), backoff.slow(), backoff.next()] == [60, 0.25, 60, 0.5]


def test_years_of_failure_overflow_nothing():
    backoff = Backoff(rng=Highest())
    assert {backoff.next() for _ in range(5000)} == {0.25, 0.5, 1, 2, 4, 8, 16, 30}
